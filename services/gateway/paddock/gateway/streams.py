"""The streams of one connection: bytes both ways beside its calls, each at the pace of whoever takes them.

A stream begins once the client knows its number, and `stream.ended` is the last thing said about it. Sending waits while
the client does not read, so a machine sends on only as fast as the client takes. One that sends what it may not ends that
stream and no other. A client that goes away ends its streams, and nothing in a machine.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

import msgspec

from paddock.bus import logs, outcomes
from paddock.contracts import errors
from paddock.contracts.api import base, streams
from paddock.gateway import inbound

log = logs.get(__name__)

AnswerT = TypeVar("AnswerT", bound=base.Result)
Send = Callable[[bytes], Awaitable[None]]

_encode = msgspec.json.Encoder().encode


class Stream(Generic[AnswerT]):
    """One stream, as the work that serves it sees it."""

    def __init__(self, number: int, send_text: Send, send_bytes: Send) -> None:
        self.number = number
        self._send_text, self._send_bytes = send_text, send_bytes
        self._inbound: inbound.Inbound | None = None
        self._has_begun = asyncio.Event()
        self.answer: asyncio.Future[AnswerT | errors.Fault] = asyncio.get_running_loop().create_future()

    @property
    def has_begun(self) -> bool:
        """Whether the client knows its number."""
        return self._has_begun.is_set()

    def begin(self) -> None:
        """The client was told the number."""
        self._has_begun.set()

    async def known(self) -> None:
        """Wait until the client was told the number."""
        await self._has_begun.wait()

    async def opened(self, answer: AnswerT, *, takes_from: int | None = None) -> None:
        """It is open: say so to the client, and go on once it was told.

        Args:
            answer: The result of the call that opened it.
            takes_from: The offset of the first byte the client may send; None when it may send nothing.
        """
        if takes_from is not None:
            self._inbound = inbound.Inbound(takes_from)
        if not self.answer.done():
            self.answer.set_result(answer)
        await self.known()

    async def send(self, kind: streams.FrameKind, offset: int, data: bytes | memoryview = b"") -> None:
        """Send a frame; returns when the connection took it, which may be never: then we are cancelled."""
        await self._send_bytes(streams.frame(kind, self.number, offset, data))

    async def parts(self) -> AsyncIterator[inbound.Part]:
        """What the client sends, to its EOF."""
        while self._inbound is not None and (part := await self._inbound.next()) is not None:
            yield part

    async def taken(self, offset: int) -> None:
        """Tell the client that everything before `offset` went on."""
        if self._inbound is not None:
            self._inbound.taken = offset
        params = {"stream": self.number, "offset": offset}
        await self._send_text(_notification(streams.TAKEN_NOTIFICATION, _encode(params)))

    def add(self, kind: streams.FrameKind, offset: int, payload: memoryview) -> None:
        """Take a frame from the client.

        Raises:
            errors.Fault: The client may not send this.
        """
        if self._inbound is None:
            raise errors.InvalidRequest("cannot take this frame: nothing can be sent on this stream")
        self._inbound.add(kind, offset, payload)


AnyStream = Stream[Any]
Work = Callable[[Stream[AnswerT]], Coroutine[Any, Any, base.Result]]
"""Serves one stream: `opened` once it is, the stream's result when it comes to its end; a fault at any time."""


class Streams:
    """Of one connection. They run in `tasks` and end with it, or when either side says so."""

    def __init__(self, send_text: Send, send_bytes: Send, tasks: asyncio.TaskGroup) -> None:
        """Make one.

        Args:
            send_text: Writes a text message; waits while the client does not read.
            send_bytes: The same for a binary one.
            tasks: Where streams run.
        """
        self._send_text, self._send_bytes, self._tasks = send_text, send_bytes, tasks
        self._running: dict[int, tuple[AnyStream, asyncio.Task[None]]] = {}
        self._numbers = itertools.count(1)
        self._newest = 0
        self._is_shut = False

    def add(self, work: Work[AnswerT], *, method: str, request_id: str) -> Stream[AnswerT]:
        """Start to open a stream; await its `answer`.

        Raises:
            errors.TooManyInFlight: The connection has as many as it may.
            errors.ShuttingDown: No more here.
        """
        if self._is_shut:
            raise errors.ShuttingDown
        if len(self._running) >= streams.STREAMS_MAX:
            raise errors.TooManyInFlight(
                f"cannot have more than {streams.STREAMS_MAX} streams on one connection",
                data={"limitStreams": streams.STREAMS_MAX},
            )
        number = self._newest = next(self._numbers)
        stream: Stream[AnswerT] = Stream(number, self._send_text, self._send_bytes)
        serving = self._serve(stream, work, method, request_id)
        task = self._tasks.create_task(serving, name=f"stream-{number}")
        self._running[number] = (stream, task)
        # Here and not only there: one that is cancelled before its first step never gets to its end.
        task.add_done_callback(lambda _: self._forget(stream))
        return stream

    async def take(self, message: bytes) -> None:
        """Take a binary message. What a client may not send ends the stream it is for.

        Raises:
            errors.InvalidRequest: It is no frame.
            errors.NotFound: It is for a stream that the client was never told of.
        """
        refused = self._filed(message)
        if refused is not None:
            await self._stop(*refused)

    async def close(self, number: int) -> None:
        """Stop one; nothing more is said about it.

        Raises:
            errors.NotFound: The client was never told of such a stream.
        """
        if self._known(number) is not None:
            await self._cancel(number)

    def _filed(self, message: bytes) -> tuple[int, errors.Fault] | None:
        """Give a frame to its stream; which stream cannot go on, and why. One that ended meanwhile is passed over."""
        try:
            kind, number, offset, payload = streams.split_frame(message)
        except errors.PayloadTooLarge as fault:
            number = fault.data["stream"]
            return None if self._known(number) is None else (number, fault)
        stream = self._known(number)
        if stream is not None:
            try:
                stream.add(kind, offset, payload)
            except errors.Fault as fault:
                return number, fault
        return None

    def _known(self, number: int) -> AnyStream | None:
        """A stream the client knows of; None when it is over."""
        stream, _ = self._running.get(number, (None, None))
        if stream is None and 0 < number <= self._newest:
            return None
        if stream is None or not stream.has_begun:
            raise errors.NotFound(f"cannot find stream {number}", data={"stream": number})
        return stream

    async def shut(self, fault: errors.Fault) -> None:
        """End all, tell the client why, and open no more."""
        self._is_shut = True
        for number in tuple(self._running):
            await self._stop(number, fault)

    def end(self) -> None:
        """The connection is over."""
        for _, task in tuple(self._running.values()):
            task.cancel()

    async def _stop(self, number: int, fault: errors.Fault) -> None:
        stream, _ = self._running.get(number, (None, None))
        await self._cancel(number)
        if stream is not None:
            if stream.answer.cancelled() or isinstance(stream.answer.result(), errors.Fault):
                return  # the call that opened it says so, or nobody is there
            await stream.known()
        await self._send_text(ended(number, fault))

    async def _cancel(self, number: int) -> None:
        _, task = self._running.get(number, (None, None))
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _serve(
        self, stream: Stream[AnswerT], work: Work[AnswerT], method: str, request_id: str
    ) -> None:
        logs.bind(request_id=request_id)
        try:
            outcome = await outcomes.settled(work(stream), method=method, request_id=request_id)
            if stream.answer.done():
                await self._send_text(ended(stream.number, outcome))
            elif isinstance(outcome, errors.Fault):
                stream.answer.set_result(outcome)
            log.debug("stream_ended", method=method, stream=stream.number, how=_kind(outcome))
        finally:
            self._forget(stream)

    def _forget(self, stream: AnyStream) -> None:
        self._running.pop(stream.number, None)
        if not stream.answer.done():
            stream.answer.set_result(errors.ShuttingDown())


@contextlib.asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group of one stream's work: the first fault of one of its tasks ends all, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        faults, others = group.split(errors.Fault)
        if faults is None or others is not None:
            raise
        raise faults.exceptions[0] from None


def _kind(outcome: base.Result | errors.Fault) -> str:
    return outcome.kind if isinstance(outcome, errors.Fault) else "result"


def ended(number: int, outcome: base.Result | errors.Fault) -> bytes:
    """The notification that a stream is over."""
    if isinstance(outcome, errors.Fault):
        data = {"kind": outcome.kind, "retryable": outcome.retryable, **outcome.data}
        how = b'"error":' + _encode({"code": outcome.code, "message": outcome.message, "data": data})
    else:
        how = b'"result":' + outcome.__pydantic_serializer__.to_json(outcome, by_alias=True)
    return _notification(streams.ENDED_NOTIFICATION, b'{"stream":%d,%b}' % (number, how))


def _notification(method: str, params: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","method":"' + method.encode() + b'","params":' + params + b"}"
