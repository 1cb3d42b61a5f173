"""A channel: frames both ways between two peers of the bus, under credit, until one last frame says how it ended.

What both ends share; `channel_client` is the end of whoever opened it, `channel_server` that of whoever serves it. Frames
arrive in order, each once, or the channel breaks with `ChannelBroken`. A frame is confirmed when its taker asks for the
next one, and no more than `rpc.FRAME_WINDOW` are unconfirmed in one direction: a slow taker slows its own channel only.
Nobody waits longer than `SILENCE_S` for a peer that is gone.
"""

import asyncio
import collections
import dataclasses
import struct
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Self, TypeVar

import msgspec
import nats.errors

from paddock.contracts import errors, rpc

PROBE_S = 3.0
"""An opener that waits and hears nothing for so long asks whether its peer is there."""
KEEPALIVE_S = 10.0
"""A server that said, or heard, nothing for so long says that it is there; the opener answers."""
SILENCE_S = 30.0
"""A peer that says nothing for so long is gone."""
WORD_BYTES_MAX: Final = rpc.REQUEST_BYTES_MAX + 32 * 1024
"""Of a result and of an end: each may repeat all that a request said. The server's max_payload is a little more."""
HEAD: Final = struct.Struct(">IBQ")
"""Of a frame to the opener: index, kind, offset."""

_EOF: Final = int(rpc.FrameKind.EOF)
_OWN_KINDS: Final = int(rpc.FrameKind.KEEPALIVE)
"""From here on kinds are the channel's own."""

Data = bytes | memoryview
ResultT = TypeVar("ResultT", bound=msgspec.Struct)
EndT = TypeVar("EndT", bound=msgspec.Struct)


class Frame(msgspec.Struct, frozen=True, gc=False):
    """What `receive` gives. `kind` is a `rpc.FrameKind` below `KEEPALIVE`; `offset` is the sender's to define."""

    kind: int
    offset: int
    data: Data


class Channel:
    """One end of a channel. One task receives; any number may send."""

    def __init__(self) -> None:
        self._queue: collections.deque[Frame] = collections.deque()
        self._arrived = 0
        self._taken = 0
        self._holds_frame = False
        """The taker has a frame which it has not dealt with, as far as we know."""
        self._hears_no_more = False
        self._sent = 0
        self._confirmed = 0
        self._says_no_more = False
        self._fault: errors.Fault | None = None
        self._came = asyncio.Event()
        self._may_send = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._said_at = self._loop.time()

    @property
    def fault(self) -> errors.Fault | None:
        """Why nothing more goes out and, once the frames that came are taken, nothing comes in."""
        return self._fault

    async def send(self, data: Data, *, kind: int = rpc.FrameKind.DATA, offset: int = 0) -> None:
        """Send one frame; waits while `rpc.FRAME_WINDOW` of ours are unconfirmed.

        Args:
            data: At most `rpc.FRAME_BYTES`; not changed until this returned.
            kind: Below `rpc.FrameKind.KEEPALIVE`.
            offset: At least 0, for the receiver.

        Raises:
            errors.ChannelBroken: The other end is gone, or has ended the channel.
            errors.PayloadTooLarge: Not sent.

        Cancellation: safe; the frame was sent whole or not at all.
        """
        if len(data) > rpc.FRAME_BYTES:
            raise errors.PayloadTooLarge(
                f"cannot send a frame of {len(data)} bytes: the limit is {rpc.FRAME_BYTES}"
            )
        if not 0 <= kind < _OWN_KINDS:
            raise ValueError(f"cannot send a frame of kind {kind}: it is the channel's own")
        await self._send(kind, offset, data)

    async def send_eof(self) -> None:
        """Say that nothing more comes in this direction; saying it again does nothing. As `send` otherwise."""
        if not self._says_no_more:
            await self._send(rpc.FrameKind.EOF, 0, b"")

    async def receive(self) -> Frame | None:
        """The next frame; asking for it confirms the one before. None when nothing more comes in this direction.

        Raises:
            errors.ChannelBroken: The other end is gone. What had arrived was given out first.
            errors.Fault: With which the server ended the channel; at the opener only.

        Cancellation: safe; no frame is lost.
        """
        if self._holds_frame:
            self._holds_frame = False
            self._taken += 1
            await self._try(self._confirm())
        while not self._queue:
            if self._hears_no_more:
                return None
            if self._fault is not None:
                raise self._fault
            await self._until(self._came)
        self._holds_frame = True
        return self._queue.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        frame = await self.receive()
        if frame is None:
            raise StopAsyncIteration
        return frame

    def break_off(self, fault: errors.Fault) -> None:
        """End it here: whoever waits gets this fault, and so does whoever comes; the first one stays."""
        if self._fault is None:
            self._fault = fault
            self._wake()

    # What follows is for the two ends.

    async def _send(self, kind: int, offset: int, data: Data) -> None:
        if self._says_no_more:
            raise ValueError("cannot send: the end of this direction was said")
        while self._sent - self._confirmed >= rpc.FRAME_WINDOW and self._fault is None:
            await self._until(self._may_send)
        if self._fault is not None:
            raise self._refusal()
        # Counted and handed to the connection without a wait between: many may send, none out of order.
        index = self._sent
        self._sent += 1
        self._says_no_more = kind == _EOF
        self._said_at = self._loop.time()
        await self._try(self._put(index, kind, offset, data))

    def _refusal(self) -> errors.Fault:
        fault = self._fault
        if isinstance(fault, errors.ChannelBroken):
            return fault
        return errors.ChannelBroken("cannot send: the channel has ended")

    async def _try(self, saying: Awaitable[None]) -> None:
        try:
            await saying
        except nats.errors.Error as error:
            self.break_off(errors.ChannelBroken("the channel broke off: the bus is not connected"))
            raise self._refusal() from error

    async def _until(self, event: asyncio.Event) -> None:
        event.clear()
        await event.wait()

    def _wake(self) -> None:
        self._came.set()
        self._may_send.set()

    def _credited(self, received: int) -> None:
        """The other end has taken in so many frames."""
        if self._confirmed < received <= self._sent:
            self._confirmed = received
            self._may_send.set()

    def _accept(self, index: int, kind: int, offset: int, data: Data) -> None:
        """Take in a frame of the other end's, whatever it may be."""
        if self._fault is not None or not self._is_next(index):
            return
        if kind == _EOF:
            self._hears_no_more = True
        elif not 0 <= kind < _OWN_KINDS or offset < 0 or len(data) > rpc.FRAME_BYTES:
            self.break_off(errors.BadAnswer("cannot go on with the channel: this is no frame of it"))
            return
        elif self._hears_no_more or self._arrived - self._taken >= rpc.FRAME_WINDOW:
            self.break_off(errors.BadAnswer("cannot go on with the channel: more arrived than was asked for"))
            return
        else:
            self._queue.append(Frame(kind, offset, data))
        self._arrived += 1
        self._came.set()

    def _is_next(self, index: int) -> bool:
        if index != self._arrived:
            self.break_off(errors.ChannelBroken("the channel broke off: a part was lost on the bus"))
        return index == self._arrived

    async def _put(self, index: int, kind: int, offset: int, data: Data) -> None:
        """Publish one frame."""
        raise NotImplementedError

    async def _confirm(self) -> None:
        """Tell the other end how many of its frames were taken."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, slots=True)
class Opened(Generic[ResultT, EndT]):
    """What a channel's `open` returns: the result that says it is open, and what then carries it out.

    Once the result went out `run` is begun, if only to be cancelled at its first await: it cleans up. What it returns, or
    the fault it raises, is the channel's last word. It is cancelled when the opener wants no more or is gone, the bus breaks
    off or the process stops.
    """

    result: ResultT
    run: Callable[[Channel], Awaitable[EndT | msgspec.Raw]]
