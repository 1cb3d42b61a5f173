"""A daemon's side of the bus for one machine: answers what it is told to, and remembers what it was asked."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator

from paddock.bus import clock, responder
from paddock.contracts import daemon, errors, ids, services, subjects
from tests.gateway import door


class Box:
    """Answers `exec`, `writeFile` and `readFile` like a machine that has one file."""

    def __init__(self) -> None:
        self.asked: list[daemon.ExecCommandParams] = []
        self.call_ids: list[str] = []
        self.content = "hello"
        self.refuses: errors.Fault | None = None
        self.hangs = asyncio.Event()

    async def exec(
        self, params: daemon.ExecCommandParams, call: responder.CallContext
    ) -> daemon.ExecCommandResult:
        if self.refuses is not None:
            raise self.refuses
        if params.command == ["hang"]:
            self.hangs.set()
            await asyncio.Event().wait()
        self.asked.append(params)
        self.call_ids.append(call.call_id)
        return daemon.ExecCommandResult(
            exit_code=3, stdout=" ".join(params.command), stderr="", stdout_bytes=4, took_ms=2
        )

    async def write(
        self, params: daemon.WriteFileParams, _call: responder.CallContext
    ) -> daemon.WriteFileResult:
        if self.refuses is not None:
            raise self.refuses
        self.content = params.content
        digest = hashlib.sha256(params.content.encode()).hexdigest()
        return daemon.WriteFileResult(path=params.path, bytes_written=len(params.content), sha256=digest)

    async def read(
        self, params: daemon.ReadFileParams, _call: responder.CallContext
    ) -> daemon.ReadFileResult:
        if self.refuses is not None:
            raise self.refuses
        part = self.content[params.offset :][: params.length]
        digest = hashlib.sha256(self.content.encode()).hexdigest()
        return daemon.ReadFileResult(
            path=params.path, size=len(self.content), sha256=digest, mode=0o644, content=part
        )

    @contextlib.asynccontextmanager
    async def serving(self, gateway: door.Door, machine: str, generation: int = 1) -> AsyncIterator["Box"]:
        """On the bus as the daemon of this generation until the block ends."""
        sandbox = ids.sandbox_id(ids.MachineId(machine), generation)
        nc = await gateway.ground.bus.daemon(sandbox)
        wall = clock.SystemClock()
        table = responder.table(
            responder.handler(daemon.EXEC_COMMAND, self.exec),
            responder.handler(daemon.WRITE_FILE, self.write),
            responder.handler(daemon.READ_FILE, self.read),
        )
        async with asyncio.TaskGroup() as tasks:
            calls = responder.Responder(
                nc, subject=subjects.rpc_call(sandbox), handlers=table, clock=wall, tasks=tasks
            )
            credit = responder.table(calls.credit_handler())
            control = responder.Responder(
                nc, subject=subjects.rpc_control(sandbox), handlers=credit, clock=wall, tasks=tasks
            )
            await control.start()
            await calls.start()
            await nc.flush()
            try:
                yield self
            finally:
                await calls.drain(0.0)
                await control.drain(0.0)
        await nc.close()


@contextlib.asynccontextmanager
async def logs_on(gateway: door.Door, node: str, text: str) -> AsyncIterator[list[services.LogParams]]:
    """A provisioner's log door on one node."""
    asked: list[services.LogParams] = []

    async def answer(params: services.LogParams, _call: responder.CallContext) -> services.LogResult:
        asked.append(params)
        return services.LogResult(text=text, size_bytes=len(text))

    nc = await gateway.ground.bus.service("provisioner")
    async with asyncio.TaskGroup() as tasks:
        server = responder.Responder(
            nc,
            subject=subjects.provisioner_call(node),
            handlers=responder.table(responder.handler(services.SANDBOX_LOG, answer)),
            clock=clock.SystemClock(),
            tasks=tasks,
        )
        await server.start()
        await nc.flush()
        try:
            yield asked
        finally:
            await server.drain(0.0)
