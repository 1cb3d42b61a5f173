"""A machine as setup meets it: the daemon's own handlers on a real bus, a HOME of its own, and what was asked of it.

The daemon runs in this process and with the rights of one; commands are real processes.
"""

import asyncio
import contextlib
import os
import pathlib
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from paddock.bus import caller, clock, responder
from paddock.contracts import daemon, errors, ids, rpc, subjects
from paddock.daemon import calls, environment, handlers, journal
from tests.support import connections

Stub = Callable[[msgspec.Struct], msgspec.Struct | None]


class Machine:
    """`commands`, `writes` and `killed` are what was asked, in order; the same call id counts once."""

    def __init__(self, asks: caller.Caller, bus: connections.Connections, folder: pathlib.Path) -> None:
        self.id = ids.new_machine_id()
        self.home = folder / "home"
        self.bin = folder / "bin"
        """First on the PATH of commands."""
        self.commands: list[daemon.ExecCommandParams] = []
        self.call_ids: list[str] = []
        self.asked: list[str] = []
        """Every call id, as often as it was asked for."""
        self.writes: list[str] = []
        self.killed: list[str] = []
        self.faults: list[errors.Fault] = []
        """Raised one by one, in place of the next calls."""
        self.stub: Stub = lambda _: None
        """Answers or raises in the machine's place; None lets it answer."""
        self._asks, self._bus, self._folder = asks, bus, folder
        for made in (self.home, self.bin):
            made.mkdir()

    def sandbox(self, generation: int = 1) -> ids.SandboxId:
        return ids.sandbox_id(self.id, generation)

    async def call(
        self,
        subject: str,
        method: rpc.Method[rpc.ParamsT, rpc.ResultT],
        params: rpc.ParamsT,
        *,
        timeout_s: float,
        call_id: str = "",
        traceparent: str = "",
    ) -> rpc.ResultT:
        """What `guest.Calls` asks for."""
        if self.faults:
            raise self.faults.pop(0)
        self._note(params, call_id)
        stubbed: Any = self.stub(params)
        if stubbed is not None:
            assert isinstance(stubbed, method.result)
            return stubbed
        return await self._asks.call(subject, method, params, timeout_s=timeout_s, call_id=call_id)

    def _note(self, params: msgspec.Struct, call_id: str) -> None:
        self.asked.append(call_id)
        match params:
            case daemon.WriteFileParams():
                self.writes.append(params.path)
            case daemon.CallParams():
                self.killed.append(params.call_id)
            case daemon.ExecCommandParams() if call_id not in self.call_ids:
                self.commands.append(params)
                self.call_ids.append(call_id)
            case _:
                pass

    @contextlib.asynccontextmanager
    async def booted(self, generation: int = 1) -> AsyncIterator[str]:
        """A daemon of this generation serves until the block ends. Yields its boot id."""
        sandbox, boot = self.sandbox(generation), ids.new_boot_id()
        wall = clock.SystemClock()
        # Two daemons at once would be two writers of one journal; each generation has its own here.
        book = journal.Journal(self.home / f".paddock/journal-{generation}", wall)
        book.open()
        ledger = calls.Calls(book)
        nc = await self._bus.daemon(sandbox, pending_size=0)
        async with asyncio.TaskGroup() as tasks:
            served = handlers.Handlers(
                ledger=ledger,
                surroundings=environment.Environment(self._base_env(), self.home / ".paddock/.env"),
                home=str(self.home),
                boot_id=boot,
                now=wall,
            )

            def peer(subject: str, table: Any) -> responder.Responder:
                return responder.Responder(
                    nc, subject=subject, queue=subjects.DAEMON_QUEUE, handlers=table, clock=wall, tasks=tasks
                )

            asked = peer(subjects.rpc_call(sandbox), served.for_calls())
            controlled = peer(subjects.rpc_control(sandbox), served.for_control(asked.credit_handler()))
            await asked.start()
            await controlled.start()
            try:
                yield boot
            finally:
                ledger.kill_all()
                await asked.drain(5.0)
                await controlled.drain(5.0)
        book.close()

    def _base_env(self) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
        }

    def ran(self, program: str) -> list[list[str]]:
        return [params.command for params in self.commands if params.command[0] == program]

    def clones(self) -> list[list[str]]:
        return [command for command in self.ran("git") if "clone" in command]


@contextlib.asynccontextmanager
async def on_the_bus(
    bus: connections.Connections, folder: pathlib.Path, *, service: Any = "setup_pusher"
) -> AsyncIterator[Machine]:
    """A machine, not booted yet, asked with the rights of `service`."""
    nc = await bus.service(service, pending_size=0)
    name = f"{service}-{secrets.token_hex(3)}"
    async with caller.Caller(nc, caller_id=name, clock=clock.SystemClock()) as asks:
        yield Machine(asks, bus, folder)
