"""One command in a machine: what it writes, what it reads, how it ends. It goes on whoever goes away.

Waiting, reading and writing go on over cut links, restarted gateways and restarted daemons. None needs the others: a command
can be waited for without reading its output, and its stdout be read without its stderr.
"""

import asyncio
import base64
from typing import Self

from paddock.client import output_feed, patience, stdin, transport
from paddock.contracts import errors, executions
from paddock.contracts.api import base, methods
from paddock.contracts.api import executions as api

ANSWER_S = 5.0
"""For the answer of a machine that has waited."""


class Process:
    """One command. Nothing here ends it; `async with` only lets go of the links to it.

    `stdout` and `stderr` have a link each: read one, both at once, or neither. `execution` is the command as it was last
    seen, None when nothing was asked yet. `on_link`, when set, is told False when a link to the command was cut and True
    when it is back.
    """

    def __init__(
        self, link: transport.Transport, machine_id: str, exec_id: str, execution: api.Execution | None
    ) -> None:
        self.id, self.machine_id = exec_id, machine_id
        self.execution = execution
        self.on_link: patience.OnLink | None = None
        self._link = link
        self._waits: set[asyncio.Timeout] = set()
        self._stdin = stdin.Stdin(link, machine_id, exec_id)
        self._stdin.accepted = None if execution is None else execution.stdin_bytes
        self._stdin.on_link = self._tell_link
        self._stdout_feed = self._feed(wanted=frozenset(("stdout",)))
        self._stderr_feed = self._feed(wanted=frozenset(("stderr",)))
        self.stdout = output_feed.Output(self._stdout_feed)
        self.stderr = output_feed.Output(self._stderr_feed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the links of `stdout` and `stderr`; the command goes on."""
        await self._stdout_feed.aclose()
        await self._stderr_feed.aclose()

    def output(
        self, *, stdout_offset: int | None = None, stderr_offset: int | None = None
    ) -> output_feed.OutputFeed:
        """Stdout and stderr in order of arrival, on a link of its own; any number of feeds at once.

        Args:
            stdout_offset: Where to begin; at the first byte kept when None, of a terminal 1 MiB before its end.
            stderr_offset: Where to begin.
        """
        return self._feed(stdout_offset=stdout_offset, stderr_offset=stderr_offset)

    async def look(self) -> api.Execution:
        """How it is now."""
        return await self._wait_once(self._new_patience(), 0.0)

    async def wait(self, *, timeout_s: float | None = None) -> api.Execution:
        """Wait for its end; its output need not be read. Never times out by itself.

        Returns:
            How it ended: `exit_code`, `signal` or `lost`; also one that could not be started, by its `state`.

        Raises:
            errors.DeadlineExceeded: It still runs after `timeout_s`.
            errors.NotFound: There is no such command.
            errors.Fault: The gateway refused, or could not be reached for too long.

        Cancellation: safe; the command goes on.
        """
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                return await self._ended()
        except TimeoutError:
            if not limit.expired():
                raise
            raise errors.DeadlineExceeded(
                f"cannot say how command {self.id} ended: it still runs after {timeout_s:g} s"
            ) from None

    async def write(self, data: bytes | bytearray | memoryview, *, eof: bool = False) -> None:
        """Give it bytes on its stdin, any number; waits while it does not read. `eof` closes stdin after them.

        One writer at a time per command, in all programs; calls on one `Process` take turns.

        Raises:
            errors.StdinClosed: It takes nothing more, or was started without `stdin`.
            errors.NotRunning: It has ended.
            errors.KeeperLost: Its stdin is gone.
            errors.Conflict: Somebody else writes to it, too, and what was given cannot be told apart.

        Cancellation: at most 128 KiB are under way then; the next write delivers those first.
        """
        await self._stdin.write(data, eof=eof)

    async def close_stdin(self) -> None:
        """Let it read the end of its stdin."""
        await self._stdin.write(b"", eof=True)

    async def resize(self, columns: int, rows: int) -> None:
        """Change the size of its terminal.

        Raises:
            errors.NotATerminal: It has none.
            errors.NotRunning: It has ended.
        """
        with transport.checked():
            asked = api.MachineExecResize(machine_id=self.machine_id, id=self.id, columns=columns, rows=rows)
        await self._link.call(methods.MACHINE_EXEC_RESIZE, asked, is_named=True)

    async def signal(self, name: str) -> None:
        """Send a signal, such as TERM, to its whole process group; asked once, so it may be lost with its answer.

        Raises:
            errors.InvalidParams: There is no such signal.
            errors.NotRunning: It has ended.
            errors.NoAnswer: The answer was lost; whether it was sent cannot be said.
        """
        await self._signal(name, is_named=False)

    async def kill(self) -> None:
        """Kill its whole process group; one that has ended is no fault."""
        try:
            await self._signal("KILL", is_named=True)
        except errors.NotRunning:
            return

    async def summary(self, *, limit_bytes: int = 16 * 1024) -> api.ExecSummary:
        """The first and the last half of `limit_bytes` of each stream, and what was left out counted."""
        with transport.checked():
            asked = api.MachineExecSummary(machine_id=self.machine_id, id=self.id, limit_bytes=limit_bytes)
        return await self._link.call(methods.MACHINE_EXEC_SUMMARY, asked)

    async def read_output(
        self, stream: output_feed.StreamName, offset: int = 0, length: int | None = None
    ) -> bytes:
        """A part of what it wrote so far; to the end of that when `length` is None.

        Raises:
            errors.OutputLimit: That part is no longer kept.
            errors.BadOffset: It lies beyond the end.
        """
        found = bytearray()
        while length is None or len(found) < length:
            part_bytes = executions.OUTPUT_BYTES_MAX if length is None else length - len(found)
            with transport.checked():
                asked = api.MachineExecOutput(
                    machine_id=self.machine_id,
                    id=self.id,
                    stream=stream,
                    offset=offset + len(found),
                    length=min(executions.OUTPUT_BYTES_MAX, part_bytes),
                )
            part = await self._link.call(methods.MACHINE_EXEC_OUTPUT, asked)
            content = base64.b64decode(part.content) if part.encoding == "base64" else part.content.encode()
            found += content
            if not content or offset + len(found) >= part.size_bytes:
                break
        return bytes(found)

    def _feed(
        self,
        *,
        stdout_offset: int | None = None,
        stderr_offset: int | None = None,
        wanted: frozenset[output_feed.StreamName] = frozenset(("stdout", "stderr")),
    ) -> output_feed.OutputFeed:
        return output_feed.OutputFeed(
            self._link,
            self.machine_id,
            self.id,
            stdout_offset=stdout_offset,
            stderr_offset=stderr_offset,
            wanted=wanted,
            has_worked=self.execution is not None,
            on_link=self._tell_link,
            on_seen=self._saw,
        )

    def _saw(self, execution: api.Execution) -> None:
        if self.execution is None or self.execution.state == "running":
            self.execution = execution
            if execution.state != "running":
                for until_seen in self._waits:
                    until_seen.reschedule(asyncio.get_running_loop().time())

    def _new_patience(self) -> patience.Patience:
        return patience.Patience(has_worked=self.execution is not None, on_link=self._tell_link)

    def _tell_link(self, is_up: bool) -> None:
        if self.on_link is not None:
            self.on_link(is_up)

    async def _ended(self) -> api.Execution:
        waiting = self._new_patience()
        while (seen := self.execution) is None or seen.state == "running":
            # Who reads its output may see its end before the gateway says it.
            until_seen = asyncio.timeout(None)
            self._waits.add(until_seen)
            try:
                async with until_seen:
                    await self._wait_once(waiting, base.WAIT_MAX_S)
            except TimeoutError:
                if not until_seen.expired():
                    raise
            finally:
                self._waits.discard(until_seen)
        return seen

    async def _wait_once(self, waiting: patience.Patience, wait_s: float) -> api.Execution:
        asked = api.MachineExecWait(machine_id=self.machine_id, id=self.id, wait_s=wait_s)

        async def ask() -> api.Execution:
            return await self._link.call(methods.MACHINE_EXEC_WAIT, asked, takes_s=wait_s + ANSWER_S)

        self._saw(seen := await patience.until_done(waiting, ask))
        return seen

    async def _signal(self, name: str, *, is_named: bool) -> None:
        with transport.checked():
            asked = api.MachineExecSignal(machine_id=self.machine_id, id=self.id, signal=name)
        await self._link.call(methods.MACHINE_EXEC_SIGNAL, asked, is_named=is_named)
