"""A machine that speaks the toolbox's contracts over a real bus: commands, files and ports that a test holds in hand.

Nothing runs in it: a test says what a command writes and how it ends. Its connection can be cut, and itself be restarted, as
often as a test likes; what it knows stays, as it would on a machine's disk.
"""

import asyncio
import collections
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from paddock.bus import channels, clock, handlers, responder
from paddock.contracts import errors, executions, files, ids, ports, rpc, subjects
from tests.gateway import door

Serve = Callable[[channels.Channel], Awaitable[ports.Closed]]


class Command:
    """One command: what it wrote so far, what it read, and how it ended."""

    def __init__(self, params: executions.StartParams) -> None:
        self.params = params
        self.stdout, self.stderr, self.stdin = bytearray(), bytearray(), bytearray()
        self.exit_code: int | None = None
        self.signals: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self.is_eof = False
        self.changed = asyncio.Condition()

    async def writes(self, stdout: bytes = b"", stderr: bytes = b"") -> None:
        self.stdout += stdout
        self.stderr += stderr
        await self.tell()

    async def ends(self, exit_code: int = 0) -> None:
        self.exit_code = exit_code
        await self.tell()

    async def tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def shown(self) -> executions.Execution:
        has_ended = self.exit_code is not None
        return executions.Execution(
            id=self.params.id,
            command=self.params.command,
            state="ended" if has_ended else "running",
            began_at_ms=1_700_000_000_000,
            ended_at_ms=1_700_000_001_000 if has_ended else 0,
            pid=7,
            pty=self.params.pty,
            exit_code=self.exit_code,
            stdout_bytes=len(self.stdout),
            stderr_bytes=len(self.stderr),
            stdin_bytes=len(self.stdin),
        )


class Toolbox:
    """One machine. `asked` is what was asked, in order.

    `refuses[method]` are faults its next calls meet, one each; `holds[method]` is what its answers wait for.
    `answers_lost[method]` answers are lost because the gateway's connection to the bus breaks before they come.
    """

    def __init__(self, gateway: door.Door, machine: str) -> None:
        self.machine = machine
        self.commands: dict[str, Command] = {}
        self.files: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}
        self.ports: dict[int, Serve] = {}
        self.asked: list[tuple[str, Any, handlers.CallContext]] = []
        self.refuses: dict[str, collections.deque[errors.Fault]] = collections.defaultdict(collections.deque)
        self.answers_lost: dict[str, int] = collections.defaultdict(int)
        self.holds: dict[str, asyncio.Event] = {}
        self.write_pause = asyncio.Event()
        self.write_pause.set()
        self.writing, self.writing_max = 0, 0
        self.opened, self.open_now, self.frames = 0, 0, 0
        self.frame_bytes = rpc.FRAME_BYTES
        self._gateway = gateway
        self._up: contextlib.AsyncExitStack | None = None
        self._turn = asyncio.Lock()
        self.nc: Any = None

    async def up(self, generation: int = 1) -> None:
        """Be on the bus, as a daemon that was started."""
        stack = contextlib.AsyncExitStack()
        await stack.enter_async_context(self._serving(generation))
        self._up = stack

    async def down(self) -> None:
        """Be off the bus, as a daemon that was stopped."""
        stack, self._up = self._up, None
        if stack is not None:
            await stack.aclose()

    def cut(self) -> None:
        """Break the connection to the bus; it comes back on its own."""
        cut(self.nc)

    def names(self) -> list[str]:
        return [name for name, _, _ in self.asked]

    @contextlib.asynccontextmanager
    async def _serving(self, generation: int) -> AsyncIterator[None]:
        sandbox = ids.sandbox_id(ids.MachineId(self.machine), generation)
        self.nc = nc = await self._gateway.ground.bus.daemon(sandbox)
        wall = clock.SystemClock()
        async with asyncio.TaskGroup() as tasks:
            calls = responder.Responder(
                nc, subject=subjects.rpc_call(sandbox), handlers=self._table(), clock=wall, tasks=tasks
            )
            credit = responder.table(calls.credit_handler())
            control = responder.Responder(
                nc, subject=subjects.rpc_control(sandbox), handlers=credit, clock=wall, tasks=tasks
            )
            await control.start()
            await calls.start()
            await nc.flush()
            try:
                yield
            finally:
                await calls.drain(0.0)
                await control.drain(0.0)
                await nc.close()

    def _table(self) -> dict[str, handlers.Handler]:
        plain: list[tuple[rpc.Method[Any, Any], Any]] = [
            (executions.START, self._start),
            (executions.WRITE, self._write_stdin),
            (executions.RESIZE, self._resize),
            (executions.SIGNAL, self._signal),
            (executions.WAIT, self._wait),
            (executions.LIST, self._list),
            (executions.OUTPUT, self._output),
            (executions.SUMMARY, self._summary),
            (files.WRITE, self._write_part),
            (files.COMMIT, self._commit),
            (files.ABORT, self._abort),
            (files.STAT, self._stat),
            (files.LIST, self._list_files),
            (files.MKDIR, self._stat),
            (files.MOVE, self._move),
            (files.REMOVE, self._remove),
            (files.CHMOD, self._stat),
            (files.FIND, self._find),
        ]
        bound = [responder.handler(method, self._noted(method.name, work)) for method, work in plain]
        return responder.table(
            *bound,
            handlers.channel(executions.ATTACH, self._noted(executions.ATTACH.name, self._attach)),
            handlers.channel(files.READ, self._noted(files.READ.name, self._read)),
            handlers.channel(ports.OPEN, self._noted(ports.OPEN.name, self._open_port)),
        )

    def _noted(self, name: str, work: Any) -> Any:
        async def noted(params: Any, call: handlers.CallContext) -> Any:
            self.asked.append((name, params, call))
            if name in self.holds:
                await self.holds[name].wait()
            if self.refuses[name]:
                raise self.refuses[name].popleft()
            answer = await work(params, call)
            if self.answers_lost[name]:
                self.answers_lost[name] -= 1
                cut(self._gateway.context.rpc)
            return answer

        return noted

    def _command(self, exec_id: str) -> Command:
        if exec_id not in self.commands:
            raise errors.NotFound(f"cannot find command {exec_id}")
        return self.commands[exec_id]

    async def _start(
        self, params: executions.StartParams, call: handlers.CallContext
    ) -> executions.Execution:
        command = self.commands.get(params.id)
        if command is None:
            command = self.commands[params.id] = Command(params)
        elif command.params.command != params.command:
            raise errors.Conflict("cannot start it: this id was used for another command")
        if not params.background:
            await self._until_ended(command, call.held_s)
        return command.shown()

    async def _until_ended(self, command: Command, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), command.changed:
                await command.changed.wait_for(lambda: command.exit_code is not None)

    async def _wait(self, params: executions.WaitParams, _call: handlers.CallContext) -> executions.Execution:
        command = self._command(params.id)
        await self._until_ended(command, params.wait_s)
        return command.shown()

    async def _write_stdin(
        self, params: executions.WriteParams, call: handlers.CallContext
    ) -> executions.WriteResult:
        command = self._command(params.id)
        offset = len(command.stdin) if params.offset is None else params.offset
        command.stdin += call.blob[len(command.stdin) - offset :]
        command.is_eof = command.is_eof or params.eof
        return executions.WriteResult(accepted=len(command.stdin))

    async def _resize(self, params: executions.ResizeParams, _call: handlers.CallContext) -> rpc.Done:
        self._command(params.id).sizes.append((params.columns, params.rows))
        return rpc.Done()

    async def _signal(self, params: executions.SignalParams, _call: handlers.CallContext) -> rpc.Done:
        self._command(params.id).signals.append(params.signal)
        return rpc.Done()

    async def _list(
        self, params: executions.ListParams, _call: handlers.CallContext
    ) -> executions.ListResult:
        shown = [one.shown() for one in self.commands.values()]
        return executions.ListResult(executions=shown[: params.limit], is_last=len(shown) <= params.limit)

    async def _output(
        self, params: executions.OutputParams, _call: handlers.CallContext
    ) -> executions.OutputResult:
        command = self._command(params.id)
        whole = command.stdout if params.stream == "stdout" else command.stderr
        part = whole[params.offset :][: params.length]
        return executions.OutputResult(
            offset=params.offset,
            content=part.decode(),
            encoding="utf-8",
            first_offset=0,
            size_bytes=len(whole),
            is_ended=command.exit_code is not None,
        )

    async def _summary(
        self, params: executions.SummaryParams, _call: handlers.CallContext
    ) -> executions.SummaryResult:
        command = self._command(params.id)
        return executions.SummaryResult(
            execution=command.shown(), stdout=command.stdout.decode()[: params.limit_bytes], stderr=""
        )

    async def _attach(
        self, params: executions.AttachParams, _call: handlers.CallContext
    ) -> channels.Opened[executions.Attached, executions.Execution]:
        command = self._command(params.id)
        stdout, stderr = params.stdout_offset or 0, params.stderr_offset or 0

        async def run(channel: channels.Channel) -> executions.Execution:
            with self._counted():
                await self._follow(channel, command, stdout, stderr)
            return command.shown()

        attached = executions.Attached(execution=command.shown(), stdout_offset=stdout, stderr_offset=stderr)
        return channels.Opened(attached, run)

    async def _follow(self, channel: channels.Channel, command: Command, stdout: int, stderr: int) -> None:
        while True:
            has_ended = command.exit_code is not None
            while stdout < len(command.stdout) or stderr < len(command.stderr):
                if out := bytes(command.stdout[stdout : stdout + self.frame_bytes]):
                    await self._send(channel, out, offset=stdout)
                    stdout += len(out)
                if err := bytes(command.stderr[stderr : stderr + self.frame_bytes]):
                    await self._send(channel, err, offset=stderr, kind=rpc.FrameKind.STDERR)
                    stderr += len(err)
            if has_ended:
                return
            async with command.changed:
                sizes = (stdout, stderr)
                await command.changed.wait_for(
                    lambda: (
                        command.exit_code is not None or (len(command.stdout), len(command.stderr)) != sizes  # noqa: B023
                    )
                )

    async def _send(self, channel: channels.Channel, data: bytes, **more: Any) -> None:
        await channel.send(data, **more)
        self.frames += 1

    @contextlib.contextmanager
    def _counted(self) -> Any:
        self.opened += 1
        self.open_now += 1
        try:
            yield
        finally:
            self.open_now -= 1

    async def _read(
        self, params: files.ReadParams, _call: handlers.CallContext
    ) -> channels.Opened[files.Opened, files.ReadEnd]:
        content = self._file(params.path)
        info = self.info(params.path)
        if params.version and params.version != info.version:
            raise errors.Conflict(f"cannot go on reading {params.path}: it was changed")
        end = len(content) if params.length is None else min(len(content), params.offset + params.length)

        async def run(channel: channels.Channel) -> files.ReadEnd:
            with self._counted():
                for offset in range(params.offset, end, self.frame_bytes):
                    await self._send(
                        channel, content[offset : min(end, offset + self.frame_bytes)], offset=offset
                    )
            # As a daemon does: from the middle with a length, nobody waits for the digest of the whole.
            is_hashed = end == len(content) and (params.length is None or not params.offset)
            digest = hashlib.sha256(content).hexdigest() if is_hashed else ""
            return files.ReadEnd(size=len(content), sha256=digest)

        return channels.Opened(files.Opened(info=info), run)

    def _file(self, path: str) -> bytes:
        if path not in self.files:
            raise errors.NoSuchPath(f"cannot read {path}: it does not exist")
        return self.files[path]

    def info(self, path: str) -> files.FileInfo:
        content = self._file(path)
        return files.FileInfo(
            path=path,
            name=path.rsplit("/", 1)[-1],
            kind="file",
            size=len(content),
            mode=0o644,
            modified_at_ms=1_700_000_000_000,
            version=hashlib.sha256(content).hexdigest()[:12],
        )

    async def _write_part(self, params: files.WriteParams, call: handlers.CallContext) -> files.WriteResult:
        self.writing += 1
        self.writing_max = max(self.writing_max, self.writing)
        try:
            await self.write_pause.wait()
            async with self._turn:
                upload = self.uploads.setdefault(params.upload, bytearray())
                if params.offset > len(upload):
                    raise errors.BadOffset("cannot take this part: one before it is missing")
                upload += call.blob[len(upload) - params.offset :]
                return files.WriteResult(received=len(upload))
        finally:
            self.writing -= 1

    async def _commit(self, params: files.CommitParams, _call: handlers.CallContext) -> files.FileInfo:
        content = bytes(self.uploads[params.upload])
        if hashlib.sha256(content).hexdigest() != params.sha256 or len(content) != params.size:
            raise errors.Conflict("cannot commit: it is not what was meant")
        self.files[params.path] = content
        return self.info(params.path)

    async def _abort(self, params: files.AbortParams, _call: handlers.CallContext) -> rpc.Done:
        self.uploads.pop(params.upload, None)
        return rpc.Done()

    async def _stat(self, params: Any, _call: handlers.CallContext) -> files.FileInfo:
        return self.info(params.path)

    async def _list_files(self, params: files.ListParams, _call: handlers.CallContext) -> files.ListResult:
        return files.ListResult(entries=[self.info(path) for path in sorted(self.files)][: params.limit])

    async def _move(self, params: files.MoveParams, _call: handlers.CallContext) -> files.FileInfo:
        self.files[params.to] = self.files.pop(params.path)
        return self.info(params.to)

    async def _remove(self, params: files.RemoveParams, _call: handlers.CallContext) -> rpc.Done:
        del self.files[params.path]
        return rpc.Done()

    async def _find(self, params: files.FindParams, _call: handlers.CallContext) -> files.FindResult:
        found = [self.info(path) for path in sorted(self.files)]
        return files.FindResult(entries=found[: params.limit], is_complete=len(found) <= params.limit)

    async def _open_port(
        self, params: ports.OpenParams, _call: handlers.CallContext
    ) -> channels.Opened[ports.Open, ports.Closed]:
        if params.port not in self.ports:
            raise errors.PortRefused(f"cannot connect to port {params.port}: nothing listens on it")

        async def run(channel: channels.Channel) -> ports.Closed:
            with self._counted():
                return await self.ports[params.port](channel)

        return channels.Opened(ports.Open(address="127.0.0.1"), run)


def cut(nc: Any) -> None:
    """Break a connection to the bus without a word; its client comes back on its own."""
    nc._transport._io_writer.transport.abort()


@contextlib.asynccontextmanager
async def running(gateway: door.Door, machine: str) -> AsyncIterator[Toolbox]:
    """One that is on the bus until the block ends."""
    box = Toolbox(gateway, machine)
    await box.up()
    try:
        yield box
    finally:
        await box.down()
