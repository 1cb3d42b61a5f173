"""What a client sent on one stream and nobody took on yet: in order, without gaps, never more than the window."""

import asyncio
import collections

from paddock.contracts import errors
from paddock.contracts.api import streams

Part = tuple[int, memoryview]
"""An offset and the bytes there."""


class Inbound:
    """Of one stream. Small frames that wait are put together: a thousand of them are not a thousand messages of the bus."""

    def __init__(self, offset: int) -> None:
        self._parts: collections.deque[bytearray | memoryview] = collections.deque()
        self._from, self._to = offset, offset
        self.taken = offset
        self._is_eof = False
        self._changed = asyncio.Event()

    def add(self, kind: streams.FrameKind, offset: int, payload: memoryview) -> None:
        """Take one frame.

        Raises:
            errors.Fault: The client may not send this.
        """
        if self._is_eof or kind is streams.FrameKind.STDERR or (kind is streams.FrameKind.EOF and payload):
            raise errors.InvalidRequest("cannot take this frame: a stream takes DATA and at last one EOF")
        if offset != self._to:
            facts = {"offset": offset, "expectedOffset": self._to}
            raise errors.BadOffset(
                f"cannot take a frame at {offset}: what comes next is at {self._to}", data=facts
            )
        if self._to + len(payload) - self.taken > streams.WINDOW_BYTES:
            raise errors.PayloadTooLarge(
                f"cannot take more than {streams.WINDOW_BYTES} bytes beyond what stream.taken said",
                data={"limitBytes": streams.WINDOW_BYTES},
            )
        self._is_eof = kind is streams.FrameKind.EOF
        self._append(payload)
        self._changed.set()

    def _append(self, payload: memoryview) -> None:
        if not payload:
            return
        self._to += len(payload)
        last = self._parts[-1] if self._parts else None
        if last is not None and len(last) + len(payload) <= streams.FRAME_BYTES_MAX:
            if isinstance(last, memoryview):
                last = self._parts[-1] = bytearray(last)
            last += payload
        else:
            self._parts.append(payload)

    async def next(self) -> Part | None:
        """The next bytes; None after the last."""
        while not self._parts:
            if self._is_eof:
                return None
            self._changed.clear()
            await self._changed.wait()
        part = self._parts.popleft()
        offset, self._from = self._from, self._from + len(part)
        return offset, memoryview(part)
