"""Following a command's output: from any offset, from the disk, as it comes, and exactly to its end.

Any number of viewers follow one command, each at its own pace; none of them slows another or the command. What one sees
depends on the offsets it asked for and on nothing else.
"""

import asyncio
import functools
import os

from paddock.bus import channels
from paddock.contracts import errors, rpc
from paddock.contracts import executions as wire
from paddock.daemon import exec_answer, exec_book, exec_record, executions, output

NEAR_BYTES = 512 * 1024
"""What was written so lately is in memory: reading it costs less than asking a thread to."""
BLOCK_BYTES = 4 * rpc.FRAME_BYTES
"""What a thread reads at once of what is older."""
_KINDS = {"stdout": rpc.FrameKind.DATA, "stderr": rpc.FrameKind.STDERR}


class _Side:
    """One of the two streams: how far its viewer is, and how much there is."""

    __slots__ = ("_reading", "at", "end", "kind", "reader", "stream")

    def __init__(self, stream: wire.StreamName, reader: output.Reader, at: int) -> None:
        self.stream = stream
        self.kind = _KINDS[stream]
        self.reader = reader
        self.at = at
        self.end = at
        self._reading: asyncio.Future[bytes] | None = None

    async def read(self, *, is_live: bool) -> bytes:
        """The next bytes, at least one of them.

        Raises:
            errors.OutputLimit: They are no longer kept.
        """
        left = self.end - self.at
        try:
            if is_live and left <= NEAR_BYTES:
                return self.reader.read(self.at, min(left, rpc.FRAME_BYTES))
            loop = asyncio.get_running_loop()
            self._reading = loop.run_in_executor(None, self.reader.read, self.at, min(left, BLOCK_BYTES))
            return await asyncio.shield(self._reading)
        except output.GivenUpError as error:
            given_up = exec_answer.out_of_bounds(self.at, error.first_offset, error.size_bytes)
            raise given_up or errors.OutputLimit from error

    def close(self) -> None:
        if self._reading is None or self._reading.done():
            self.reader.close()
        else:
            # Its thread cannot be cancelled, and must not find another file behind the number.
            self._reading.add_done_callback(self._close_later)

    def _close_later(self, read: "asyncio.Future[bytes]") -> None:
        if not read.cancelled():
            read.exception()  # nobody is left to hear it
        self.reader.close()


class Follower:
    """One viewer; `run` it once, as a channel's work."""

    def __init__(self, index: executions.Index, record: exec_record.Record, out: int, err: int) -> None:
        """Make one that begins at these offsets of stdout and stderr."""
        self._index = index
        self._record = record
        make = functools.partial(exec_answer.reader, index.book.folder, record)
        self._sides = (_Side("stdout", make("stdout"), out), _Side("stderr", make("stderr"), err))
        self._changed = asyncio.Event()
        self._is_final = False

    async def run(self, channel: channels.Channel) -> wire.Execution:
        """Send what there is and what comes, until the end of the command.

        Raises:
            errors.OutputLimit: The viewer was so slow that what it wants next is no longer kept.
            errors.ChannelBroken: The viewer is gone.

        Cancellation: safe; nothing of it is left.
        """
        try:
            async with self._index.following(self._record.id, self._changed.set) as live:
                if live is None:
                    self._record = self._index.book.record(self._record.id)
                while not await self._catch_up(channel, live):
                    await self._changed.wait()
        except OSError as error:
            raise errors.InputOutput(
                f"cannot read the output: {os.strerror(error.errno or 0).lower()}", detail=repr(error)
            ) from error
        finally:
            for side in self._sides:
                side.close()
        return exec_answer.execution(self._index.book.folder, self._index.book.record(self._record.id))

    async def _catch_up(self, channel: channels.Channel, live: exec_book.Live | None) -> bool:
        """Send all that there is; True when nothing more can come."""
        while True:
            self._changed.clear()
            is_over = live is None or live.is_over
            self._look(live, is_over=is_over)
            behind = [side for side in self._sides if side.at < side.end]
            if not behind:
                return is_over
            for side in behind:
                await self._send(channel, side, is_live=not is_over)

    def _look(self, live: exec_book.Live | None, *, is_over: bool) -> None:
        """Learn how much there is."""
        if is_over and not self._is_final:
            self._is_final = True
            record = live.record if live is not None else self._record
            for side in self._sides:
                side.end = exec_answer.bounds(self._index.book.folder, record, side.stream)[1]
        elif live is not None and not is_over:
            out, err = self._sides
            out.end, err.end = max(out.end, live.stdout), max(err.end, live.stderr)

    async def _send(self, channel: channels.Channel, side: _Side, *, is_live: bool) -> None:
        block = await side.read(is_live=is_live)
        if not block:
            # Counted, and not there: only a disk that lost it, and then there is nothing to wait for.
            raise errors.InputOutput(f"cannot read the output from {side.at}: it is not on the disk")
        for begin in range(0, len(block), rpc.FRAME_BYTES):
            part = memoryview(block)[begin : begin + rpc.FRAME_BYTES]
            await channel.send(part, kind=side.kind, offset=side.at)
            side.at += len(part)


async def attach(
    index: executions.Index, params: wire.AttachParams
) -> channels.Opened[wire.Attached, wire.Execution]:
    """Begin to follow a command.

    Raises:
        errors.NotFound: There is no such.
        errors.BadOffset: An offset lies beyond what was written.
        errors.OutputLimit: What is asked for is no longer kept.
    """
    record = index.book.record(params.id)
    facts = await index.facts(params.id)
    record = index.book.record(params.id)
    is_terminal = record.pty
    out = _begin(
        exec_answer.bounds(index.book.folder, record, "stdout"), params.stdout_offset, is_terminal=is_terminal
    )
    err = _begin(
        exec_answer.bounds(index.book.folder, record, "stderr"), params.stderr_offset, is_terminal=is_terminal
    )
    now = exec_answer.execution(index.book.folder, record, facts.get(params.id))
    attached = wire.Attached(execution=now, stdout_offset=out, stderr_offset=err)
    return channels.Opened(attached, Follower(index, record, out, err).run)


def _begin(bounds: tuple[int, int], asked: int | None, *, is_terminal: bool) -> int:
    first, size = bounds
    if asked is None:
        return max(first, size - wire.REPLAY_BYTES) if is_terminal else first
    fault = exec_answer.out_of_bounds(asked, first, size)
    if fault is not None:
        raise fault
    return asked
