"""`machine.exec*`: commands that go on whoever goes away, asked of the machine they run in.

What a client follows is read again where it broke off when the machine's daemon or the bus was away for a moment: the
client sees every byte once. Values of variables and of stdin pass through and are kept nowhere.
"""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from paddock.bus import channels, clock
from paddock.contracts import errors, ids, rpc
from paddock.contracts import executions as asked
from paddock.contracts.api import base, executions, methods
from paddock.contracts.api import streams as wire
from paddock.gateway import jsonrpc, machine_link, moments, streams

START_S: Final = 60.0
"""For a start that waits, and a second one when its answer was lost."""
HELD_S: Final = rpc.HELD_REPLY_S + 3.0
CALL_S: Final = 30.0
TRY_S: Final = 8.0
"""An answer that takes longer was lost; it is asked for again."""
WRITE_TRY_S: Final = 15.0
"""Up to ten of them pass while a command does not read."""
LOOK_TRY_S: Final = 3.0
"""Beyond the time a daemon was asked to hold: a killed one answers nobody, and the next one can be asked at once."""
WAIT_STEP_S: Final = 5.0
"""Of one question while a caller waits for an end."""
_FRAME_KINDS: Final = {rpc.FrameKind.DATA: wire.FrameKind.DATA, rpc.FrameKind.STDERR: wire.FrameKind.STDERR}


class Executions:
    def __init__(self, link: machine_link.MachineLink, wall: clock.Clock) -> None:
        self._link, self._clock = link, wall
        self._patience: set[asyncio.Timeout] = set()
        self._has_ended = False

    def routes(self) -> tuple[jsonrpc.AnyRoute, ...]:
        return (
            jsonrpc.Route(methods.MACHINE_EXEC_START, self.start),
            jsonrpc.Route(methods.MACHINE_EXEC_ATTACH, self.attach),
            jsonrpc.Route(methods.MACHINE_EXEC_WRITE, self.write),
            jsonrpc.Route(methods.MACHINE_EXEC_RESIZE, self.resize),
            jsonrpc.Route(methods.MACHINE_EXEC_SIGNAL, self.signal),
            jsonrpc.Route(methods.MACHINE_EXEC_WAIT, self.wait),
            jsonrpc.Route(methods.MACHINE_EXEC_LIST, self.list),
            jsonrpc.Route(methods.MACHINE_EXEC_OUTPUT, self.output),
            jsonrpc.Route(methods.MACHINE_EXEC_SUMMARY, self.summary),
        )

    def end(self) -> None:
        """The gateway stops: whoever waits gets the command as it is."""
        self._has_ended = True
        for patience in self._patience:
            patience.reschedule(asyncio.get_running_loop().time())

    async def start(self, params: executions.MachineExecStart, _call: jsonrpc.Call) -> executions.Execution:
        exec_id = params.id or ids.new_ulid(self._clock.now_ms())
        wanted = asked.StartParams(
            id=exec_id,
            command=params.command,
            cwd=params.cwd,
            env=params.env,
            user=params.user,
            stdin=params.stdin,
            pty=params.pty,
            columns=params.columns,
            rows=params.rows,
            timeout_s=params.timeout_s,
            background=params.background,
            output_limit_bytes=params.output_limit_bytes,
        )
        try:
            started = await self._while_we_run(
                lambda: self._start(params.machine_id, wanted),
                lambda: self._start(params.machine_id, msgspec.structs.replace(wanted, background=True)),
            )
        except errors.Fault as fault:
            # Whether it runs may be unknown, and then this is how to find out.
            fault.data["id"] = exec_id
            raise
        return _execution(started)

    async def _start(self, machine_id: str, wanted: asked.StartParams) -> asked.Execution:
        try_s = TRY_S if wanted.background else HELD_S
        return await self._link.insist(machine_id, asked.START, wanted, timeout_s=START_S, try_s=try_s)

    async def attach(
        self, params: executions.MachineExecAttach, call: jsonrpc.Call
    ) -> executions.ExecAttached:
        viewer = _Viewer(self._link, params)
        return await call.staying().open(viewer.run, method=methods.MACHINE_EXEC_ATTACH.name)

    async def write(self, params: executions.MachineExecWrite, _call: jsonrpc.Call) -> executions.ExecWritten:
        wanted = asked.WriteParams(id=params.id, offset=params.offset, eof=params.eof)
        content = _bytes(params)
        if params.offset is None:  # repeated, it could be taken twice
            written = await self._link.ask(
                params.machine_id, asked.WRITE, wanted, timeout_s=CALL_S, blob=content
            )
        else:
            written = await self._link.insist(
                params.machine_id, asked.WRITE, wanted, timeout_s=CALL_S, try_s=WRITE_TRY_S, blob=content
            )
        return executions.ExecWritten.model_construct(accepted=written.accepted)

    async def resize(self, params: executions.MachineExecResize, _call: jsonrpc.Call) -> base.Done:
        wanted = asked.ResizeParams(id=params.id, columns=params.columns, rows=params.rows)
        await self._link.insist(params.machine_id, asked.RESIZE, wanted, timeout_s=CALL_S, try_s=TRY_S)
        return base.Done()

    async def signal(self, params: executions.MachineExecSignal, _call: jsonrpc.Call) -> base.Done:
        wanted = asked.SignalParams(id=params.id, signal=params.signal)
        await self._link.ask(params.machine_id, asked.SIGNAL, wanted, timeout_s=CALL_S)
        return base.Done()

    async def wait(self, params: executions.MachineExecWait, _call: jsonrpc.Call) -> executions.Execution:
        found = await self._while_we_run(
            lambda: self._until_ended(params), lambda: self._look(params, 0.0, was_there=True)
        )
        return _execution(found)

    async def _while_we_run(
        self,
        waits: Callable[[], Awaitable[asked.Execution]],
        looks: Callable[[], Awaitable[asked.Execution]],
    ) -> asked.Execution:
        """What `waits` answers; once the gateway stops, what `looks` does."""
        patience = asyncio.timeout(0.0 if self._has_ended else None)
        self._patience.add(patience)
        try:
            async with patience:
                return await waits()
        except TimeoutError:
            return await looks()
        finally:
            self._patience.discard(patience)

    async def _until_ended(self, params: executions.MachineExecWait) -> asked.Execution:
        loop = asyncio.get_running_loop()
        ends_at, was_there = loop.time() + params.wait_s, False
        while True:
            wait_s = min(max(0.0, ends_at - loop.time()), WAIT_STEP_S)
            found = await self._look(params, wait_s, was_there=was_there)
            was_there = True
            if found.state != "running" or loop.time() >= ends_at:
                return found

    async def _look(self, params: executions.ExecNamed, wait_s: float, *, was_there: bool) -> asked.Execution:
        wanted = asked.WaitParams(id=params.id, wait_s=wait_s)
        return await self._link.insist(
            params.machine_id,
            asked.WAIT,
            wanted,
            timeout_s=wait_s + CALL_S,
            try_s=wait_s + LOOK_TRY_S,
            was_there=was_there,
        )

    async def list(self, params: executions.MachineExecList, _call: jsonrpc.Call) -> executions.Executions:
        wanted = asked.ListParams(running_only=params.running_only, limit=params.limit, before=params.before)
        found = await self._link.insist(params.machine_id, asked.LIST, wanted, timeout_s=CALL_S, try_s=TRY_S)
        shown = [_execution(one) for one in found.executions]
        return executions.Executions.model_construct(executions=shown, is_last=found.is_last)

    async def output(
        self, params: executions.MachineExecOutput, _call: jsonrpc.Call
    ) -> executions.ExecOutput:
        wanted = asked.OutputParams(
            id=params.id, stream=params.stream, offset=params.offset, length=params.length
        )
        found = await self._link.insist(
            params.machine_id, asked.OUTPUT, wanted, timeout_s=CALL_S, try_s=TRY_S
        )
        return executions.ExecOutput.model_construct(**machine_link.members(found))

    async def summary(
        self, params: executions.MachineExecSummary, _call: jsonrpc.Call
    ) -> executions.ExecSummary:
        wanted = asked.SummaryParams(id=params.id, limit_bytes=params.limit_bytes)
        found = await self._link.insist(
            params.machine_id, asked.SUMMARY, wanted, timeout_s=CALL_S, try_s=TRY_S
        )
        shown = machine_link.members(found) | {"execution": _execution(found.execution)}
        return executions.ExecSummary.model_construct(**shown)


class _Viewer:
    """One stream of output: where it is, and how it goes on."""

    def __init__(self, link: machine_link.MachineLink, params: executions.MachineExecAttach) -> None:
        self._link, self._params = link, params
        self._next: dict[int, int | None] = {
            rpc.FrameKind.DATA: params.stdout_offset,
            rpc.FrameKind.STDERR: params.stderr_offset,
        }

    async def run(self, stream: streams.Stream[executions.ExecAttached]) -> executions.Execution:
        async def opened(attached: asked.Attached) -> None:
            self._next = {
                rpc.FrameKind.DATA: attached.stdout_offset,
                rpc.FrameKind.STDERR: attached.stderr_offset,
            }
            await stream.opened(_attached(stream.number, attached))

        async def frame(one: channels.Frame) -> None:
            if one.kind not in _FRAME_KINDS:
                return
            if one.offset != self._next[one.kind]:
                raise errors.BadAnswer("cannot go on: the machine's output is not what comes next")
            self._next[one.kind] = one.offset + len(one.data)
            await stream.send(_FRAME_KINDS[rpc.FrameKind(one.kind)], one.offset, one.data)

        following = machine_link.Following(self._link, self._params.machine_id, asked.ATTACH, self._go_on)
        return _execution(await following.run(opened, frame))

    def _go_on(self) -> asked.AttachParams:
        return asked.AttachParams(
            id=self._params.id,
            stdout_offset=self._next[rpc.FrameKind.DATA],
            stderr_offset=self._next[rpc.FrameKind.STDERR],
        )


def _attached(number: int, attached: asked.Attached) -> executions.ExecAttached:
    return executions.ExecAttached.model_construct(
        stream=number,
        execution=_execution(attached.execution),
        stdout_offset=attached.stdout_offset,
        stderr_offset=attached.stderr_offset,
    )


def _execution(one: asked.Execution) -> executions.Execution:
    shown = machine_link.members(one)
    shown["began_at"] = moments.text(shown.pop("began_at_ms"))
    shown["ended_at"] = moments.text(shown.pop("ended_at_ms") or None)
    if one.failure is not None:
        shown["failure"] = executions.ExecFailure(code=one.failure.code, message=one.failure.message)
    return executions.Execution.model_construct(**shown)


def _bytes(params: executions.MachineExecWrite) -> bytes:
    if params.encoding == "utf-8":
        content = params.content.encode()
    else:
        try:
            content = base64.b64decode(params.content, validate=True)
        except binascii.Error as error:
            raise errors.InvalidParams("cannot write to stdin: the content is no base64") from error
    if len(content) > asked.STDIN_BYTES_MAX:
        raise errors.PayloadTooLarge(
            f"cannot write more than {asked.STDIN_BYTES_MAX} bytes to stdin at once",
            data={"sizeBytes": len(content), "limitBytes": asked.STDIN_BYTES_MAX},
        )
    return content
