"""One stream of the gateway on a WebSocket of its own: bytes both ways, until its end or a cut.

A slow reader slows this stream and nothing else, and memory stays bounded: what is not taken waits in the network, and what
was sent is never more than a window ahead of the machine. A cut is `ChannelBroken`: whoever opened the stream knows its
offsets and opens it again. What it follows goes on in the machine whoever leaves.
"""

import asyncio
import collections
import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, Final, Generic, Self, TypeVar

import aiohttp
import pydantic

from paddock.client import transport
from paddock.contracts import errors
from paddock.contracts.api import base, methods, streams

OPEN_S = 30.0
"""For the answer to the call that opens a stream; the gateway asks the machine in the meantime."""
INBOX_BYTES: Final = 4 * streams.FRAME_BYTES_MAX
"""Frames a sender may set aside for the reader while it looks for its own news; then it waits for the reader."""

ParamsT = TypeVar("ParamsT", bound=base.Params)
OpenedT = TypeVar("OpenedT", bound=streams.StreamOpened)


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """Bytes at an offset; what the offset counts is the method's to say."""

    kind: streams.FrameKind
    offset: int
    data: memoryview


class _Notification(pydantic.BaseModel):
    id: int | str | None = None
    method: str = ""
    params: dict[str, Any] = pydantic.Field(default_factory=dict)


class StreamLink(Generic[OpenedT]):
    """An open stream. One reader and one sender at a time, which may be two tasks; close it, or use `async with`.

    `opened` is the answer of the call that opened it. `sent` and `taken` are offsets of what goes to the machine: written
    here, and passed on by the gateway.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, opened: OpenedT, *, sent: int = 0) -> None:
        self.opened = opened
        self.sent = self.taken = sent
        self._socket = socket
        self._turn = asyncio.Lock()
        self._inbox: collections.deque[Frame] = collections.deque()
        self._inbox_bytes = 0
        self._inbox_drained = asyncio.Event()
        self._end: dict[str, Any] | None = None
        self._fault: errors.Fault | None = None

    @property
    def result(self) -> dict[str, Any]:
        """How it ended, once `receive` has answered None."""
        return self._end or {}

    @property
    def is_over(self) -> bool:
        """Nothing more comes but what was set aside."""
        return self._end is not None or self._fault is not None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave; the gateway ends the stream and nothing in the machine."""
        await self._socket.close()

    async def receive(self) -> Frame | None:
        """The next frame, None at the end.

        Raises:
            errors.ChannelBroken: The link was cut.
            errors.Fault: The stream could not go on; the subclass says why.

        Cancellation: safe; the frame is then given by the next call.
        """
        while not self._inbox:
            if self._end is not None:
                return None
            if self._fault is not None:
                raise self._fault
            await self._read_one(lambda: bool(self._inbox))
        frame = self._inbox.popleft()
        self._inbox_bytes -= len(frame.data)
        self._inbox_drained.set()
        return frame

    async def send(self, data: bytes | memoryview) -> None:
        """Send bytes of any length, in frames, waiting for the machine when it is a window behind.

        Raises:
            errors.ChannelBroken: The link was cut, or the stream has ended; `taken` says what surely arrived.
            errors.Fault: The stream could not go on.

        Cancellation: some of it may have been sent; `sent` says how much.
        """
        whole = memoryview(data)
        for begin in range(0, len(whole), streams.FRAME_BYTES_MAX):
            piece = whole[begin : begin + streams.FRAME_BYTES_MAX]
            offset, self.sent = self.sent, self.sent + len(piece)
            await self._until(self._is_in_window)
            await self._write(streams.frame(streams.FrameKind.DATA, self.opened.stream, offset, piece))

    async def send_eof(self) -> None:
        """Say that nothing more comes from here."""
        self._check_going()
        await self._write(streams.frame(streams.FrameKind.EOF, self.opened.stream, self.sent))

    async def _until(self, is_enough: Callable[[], bool]) -> None:
        """Take what the gateway says until it is enough."""
        self._check_going()
        while not is_enough():
            if self._inbox_bytes >= INBOX_BYTES:
                self._inbox_drained.clear()
                await self._inbox_drained.wait()
            await self._read_one(is_enough)
            self._check_going()

    def _is_in_window(self) -> bool:
        return self.sent - self.taken <= streams.WINDOW_BYTES

    def _check_going(self) -> None:
        if self._fault is not None:
            raise self._fault
        if self._end is not None:
            raise errors.ChannelBroken("cannot send any more: the stream has ended")

    async def _read_one(self, is_enough: Callable[[], bool]) -> None:
        """Take one message, unless that of somebody else was enough."""
        async with self._turn:
            if not is_enough() and not self.is_over:
                self._take(await self._socket.receive())

    def _take(self, message: aiohttp.WSMessage) -> None:
        match message.type:
            case aiohttp.WSMsgType.BINARY:
                kind, stream, offset, data = streams.split_frame(message.data)
                if stream == self.opened.stream:
                    self._inbox.append(Frame(kind, offset, data))
                    self._inbox_bytes += len(data)
            case aiohttp.WSMsgType.TEXT:
                self._take_notification(_notification(str(message.data)))
            case _:
                self._fault = _cut()

    def _take_notification(self, told: _Notification) -> None:
        if told.params.get("stream") != self.opened.stream:
            return
        try:
            match told.method:
                case streams.TAKEN_NOTIFICATION:
                    self.taken = max(self.taken, streams.TakenNotification.model_validate(told.params).offset)
                case streams.ENDED_NOTIFICATION:
                    self._ended(streams.EndedNotification.model_validate(told.params))
                case _:
                    pass  # what a newer gateway says besides
        except pydantic.ValidationError as error:
            raise errors.BadAnswer("cannot read what the gateway says about a stream") from error

    def _ended(self, told: streams.EndedNotification) -> None:
        if told.error is not None:
            self._fault = errors.from_wire(told.error.code, told.error.message, told.error.data)
        else:
            self._end = told.result or {}

    async def _write(self, message: bytes) -> None:
        try:
            await self._socket.send_bytes(message)
        except (aiohttp.ClientError, ConnectionError) as error:
            self._fault = _cut()
            raise self._fault from error


async def opened(
    link: transport.Transport,
    method: methods.Method[ParamsT, OpenedT],
    params: ParamsT,
    *,
    timeout_s: float = OPEN_S,
) -> StreamLink[OpenedT]:
    """Open a stream; the caller closes it.

    Args:
        link: To the gateway.
        method: One whose result says that a stream is open.
        params: Its parameters.
        timeout_s: Until the gateway has answered.

    Raises:
        errors.GatewayUnreachable: Nothing answers there, or not now.
        errors.NoAnswer: The gateway did not answer in time.
        errors.Fault: It refused.

    Cancellation: safe; nothing stays open.
    """
    async with contextlib.AsyncExitStack() as unless_opened:
        socket = await link.websocket()
        unless_opened.push_async_callback(socket.close)
        try:
            async with asyncio.timeout(timeout_s):
                await socket.send_str(transport.request(method, params))
                reply = await _reply(socket)
        except TimeoutError as error:
            raise errors.NoAnswer(
                f"cannot say how {method.name} began: the gateway did not answer within {timeout_s:g} s"
            ) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _cut() from error
        stream = StreamLink(socket, transport.result(method, reply))
        unless_opened.pop_all()
    return stream


async def _reply(socket: aiohttp.ClientWebSocketResponse) -> transport.Reply:
    """The answer to the only request of this link."""
    while True:
        message = await socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            continue
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise _cut()
        text = str(message.data)
        if _notification(text).method:
            continue
        try:
            return transport.Reply.model_validate_json(text)
        except pydantic.ValidationError as error:
            raise errors.BadAnswer("cannot read the gateway's answer about a stream") from error


def _notification(text: str) -> _Notification:
    try:
        return _Notification.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise errors.BadAnswer("cannot read what the gateway says about a stream") from error


def _cut() -> errors.Fault:
    return errors.ChannelBroken("cannot go on: the link to the gateway was cut")
