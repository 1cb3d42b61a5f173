"""Commands in one machine, asked for over the bus as a gateway does."""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
from collections.abc import AsyncIterator
from typing import Any

from paddock.bus import caller, channel_client
from paddock.contracts import executions, rpc, subjects
from tests.daemon import machine as machines
from tests.support import processes

CALL = subjects.rpc_call(machines.SANDBOX)
Channel = channel_client.OpenChannel[executions.Attached, executions.Execution]


@dataclasses.dataclass
class Seen:
    """What a viewer saw: the bytes, which came without a gap, and how it ended."""

    opened: executions.Attached
    stdout: bytearray = dataclasses.field(default_factory=bytearray)
    stderr: bytearray = dataclasses.field(default_factory=bytearray)
    end: executions.Execution | None = None

    def take(self, frame: Any) -> None:
        """Take a frame, which must go on exactly where the one before ended."""
        is_out = frame.kind == rpc.FrameKind.DATA
        stream = self.stdout if is_out else self.stderr
        begin = self.opened.stdout_offset if is_out else self.opened.stderr_offset
        assert frame.offset == begin + len(stream)
        stream += frame.data


class Commands:
    """A daemon under its supervisor, and whoever asks it."""

    def __init__(
        self,
        machine: machines.Machine,
        supervisor: "subprocess.Popen[bytes]",
        asking: caller.Caller,
        registrar: machines.Registrar,
    ) -> None:
        self.machine = machine
        self.supervisor = supervisor
        self.asking = asking
        self.registrar = registrar

    @property
    def shelf(self) -> pathlib.Path:
        return self.machine.folder / "exec"

    @property
    def keeper_pid(self) -> int:
        return int((self.machine.folder / "keeper.lock").read_text())

    async def ask(
        self,
        method: rpc.Method[Any, Any],
        params: Any,
        *,
        blob: bytes = b"",
        timeout_s: float = 20,
    ) -> Any:
        return await self.asking.call(CALL, method, params, timeout_s=timeout_s, blob=blob)

    async def start(
        self, exec_id: str, *command: str, timeout_s: float | None = None, **more: Any
    ) -> executions.Execution:
        """Start it, by default without waiting for its end."""
        members = {"background": True, "timeout_s": timeout_s, **more}
        params = executions.StartParams(id=exec_id, command=list(command), **members)
        started: executions.Execution = await self.ask(executions.START, params)
        return started

    async def sh(self, exec_id: str, script: str, **more: Any) -> executions.Execution:
        return await self.start(exec_id, "sh", "-c", script, **more)

    async def ended(self, exec_id: str) -> executions.Execution:
        """How it ended, once it has."""
        async with asyncio.timeout(processes.WAIT_S):
            while True:
                now: executions.Execution = await self.ask(executions.WAIT, executions.WaitParams(id=exec_id))
                if now.state != "running":
                    return now

    async def now(self, exec_id: str) -> executions.Execution:
        now: executions.Execution = await self.ask(
            executions.WAIT, executions.WaitParams(id=exec_id, wait_s=0)
        )
        return now

    @contextlib.asynccontextmanager
    async def attached(
        self, exec_id: str, out: int | None = None, err: int | None = None
    ) -> AsyncIterator[Channel]:
        params = executions.AttachParams(id=exec_id, stdout_offset=out, stderr_offset=err)
        async with self.asking.open(CALL, executions.ATTACH, params, timeout_s=10) as channel:
            yield channel

    async def follow(self, exec_id: str, out: int | None = None, err: int | None = None) -> Seen:
        """Follow it to its end."""
        async with self.attached(exec_id, out, err) as channel:
            seen = Seen(channel.opened)
            async for frame in channel:
                seen.take(frame)
            seen.end = channel.end
            return seen

    async def follow_to(self, exec_id: str, offset: int, out: int | None = None) -> Seen:
        """Follow its stdout until so much of it was seen."""
        async with self.attached(exec_id, out) as channel:
            seen = Seen(channel.opened)
            while seen.opened.stdout_offset + len(seen.stdout) < offset:
                frame = await channel.receive()
                assert frame is not None
                seen.take(frame)
            return seen

    async def write(self, exec_id: str, data: bytes, offset: int | None = None, *, eof: bool = False) -> int:
        params = executions.WriteParams(id=exec_id, offset=offset, eof=eof)
        written: executions.WriteResult = await self.ask(executions.WRITE, params, blob=data)
        return written.accepted

    async def signal(self, exec_id: str, name: str) -> None:
        await self.ask(executions.SIGNAL, executions.SignalParams(id=exec_id, signal=name))

    async def kill_daemon(self) -> None:
        """kill -9; returns when its successor has been heard."""
        before = len(self.registrar.readies)
        os.kill(self.machine.state()["pid"], signal.SIGKILL)
        await processes.until(lambda: len(self.registrar.readies) > before)

    async def kill_keeper(self) -> None:
        """kill -9; returns when it is gone."""
        pid = self.keeper_pid
        os.kill(pid, signal.SIGKILL)
        await processes.until(lambda: not processes.is_running(pid))
