"""One large answer in chunks: sent under credit, put together and checked.

The sender never has more than `CHUNK_WINDOW` chunks unconfirmed, so a large answer delays the small ones
beside it by milliseconds, a slow receiver slows only its own answer, and one that disappears frees the sender
after `credit_s`. A chunk is four bytes of index and the data. For the caller and the responder; nobody else
sends chunks.
"""

import asyncio
import hashlib
from collections.abc import Iterator

import nats.errors
from nats.aio import client as nats_client

from paddock.bus import logs
from paddock.contracts import errors, rpc

log = logs.get(__name__)

CREDIT_S = 15.0
"""A receiver that confirms nothing for so long has gone."""
SILENCE_S = 30.0
"""A sender that sends nothing for so long has gone; the sender gives up first, so it is the longer one."""
_INDEX_BYTES = 4
_HASH_SLICE_BYTES = 512 * 1024
"""Hashed in one go: under a millisecond in which nothing else runs."""

StreamKey = tuple[str, str]
"""Caller and request id: names one stream at its sender."""


class ReceiverGoneError(Exception):
    """The receiver confirms nothing any more, or said that it wants no more."""


class _Outgoing:
    __slots__ = ("is_stopped", "progress", "received")

    def __init__(self) -> None:
        self.received = 0
        self.is_stopped = False
        self.progress = asyncio.Event()


class ChunkSender:
    """The streams a responder is sending."""

    def __init__(self, nc: nats_client.Client, *, credit_s: float = CREDIT_S) -> None:
        self._nc = nc
        self._credit_s = credit_s
        self._streams: dict[StreamKey, _Outgoing] = {}

    @property
    def open_streams(self) -> int:
        """How many answers are on their way."""
        return len(self._streams)

    def credit(self, params: rpc.CreditParams) -> None:
        """Take what a receiver confirms; a stream that is over or was never ours is passed over."""
        outgoing = self._streams.get((params.caller, params.request_id))
        if outgoing is not None:
            outgoing.received = max(outgoing.received, params.received)
            outgoing.is_stopped = outgoing.is_stopped or params.stop
            outgoing.progress.set()

    async def send(self, subject: str, key: StreamKey, body: bytes) -> None:
        """Send `body` to `subject`; the receiver was told its size and digest.

        Raises:
            ReceiverGoneError: No credit for `credit_s`, or the receiver said stop.
            nats.errors.Error: The bus is down.

        Cancellation: safe; the receiver notices the silence.
        """
        outgoing = self._streams[key] = _Outgoing()
        try:
            for index, piece in enumerate(pieces(body)):
                await self._until_credit(outgoing, index)
                await self._nc.publish(subject, b"".join((index.to_bytes(_INDEX_BYTES, "big"), piece)))
        finally:
            del self._streams[key]

    async def _until_credit(self, outgoing: _Outgoing, index: int) -> None:
        while not outgoing.is_stopped and index >= outgoing.received + rpc.CHUNK_WINDOW:
            outgoing.progress.clear()
            try:
                async with asyncio.timeout(self._credit_s):
                    await outgoing.progress.wait()
            except TimeoutError as error:
                raise ReceiverGoneError(f"no credit for {self._credit_s} s after chunk {index}") from error
        if outgoing.is_stopped:
            raise ReceiverGoneError("the receiver wants no more")


def pieces(body: bytes) -> Iterator[memoryview]:
    """The body cut into chunks, without copying it."""
    view = memoryview(body)
    for start in range(0, len(view), rpc.CHUNK_BYTES):
        yield view[start : start + rpc.CHUNK_BYTES]


async def announce(body: bytes) -> rpc.Stream:
    """What the receiver is told first. Lets other work run between slices of the digest."""
    digest = hashlib.sha256()
    view = memoryview(body)
    for start in range(0, len(view), _HASH_SLICE_BYTES):
        digest.update(view[start : start + _HASH_SLICE_BYTES])
        await asyncio.sleep(0)
    return rpc.Stream(size_bytes=len(body), chunks=_chunk_count(len(body)), sha256=digest.hexdigest())


def _chunk_count(size_bytes: int) -> int:
    return -(-size_bytes // rpc.CHUNK_BYTES)


class Incoming:
    """One answer being put together. Chunks may arrive before the reply that announces them."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._chunks: list[memoryview] = []
        self._size_bytes = 0
        self._digest = hashlib.sha256()
        self._expected: rpc.Stream | None = None
        self._fault: errors.Fault | None = None
        self._progress = asyncio.Event()

    @property
    def received(self) -> int:
        """Chunks so far."""
        return len(self._chunks)

    @property
    def is_whole(self) -> bool:
        """Whether all that was announced has arrived."""
        return self._expected is not None and len(self._chunks) >= self._expected.chunks

    @property
    def is_over(self) -> bool:
        """Whether no further chunk is wanted."""
        return self._fault is not None or self.is_whole

    def expect(self, stream: rpc.Stream) -> None:
        """Take the announcement."""
        self._expected = stream
        if stream.size_bytes > self._limit_bytes:
            self.fail(
                errors.PayloadTooLarge(
                    f"cannot take an answer of {stream.size_bytes} bytes: the limit is {self._limit_bytes}"
                )
            )
        elif stream.chunks != _chunk_count(stream.size_bytes):
            self.fail(errors.BadAnswer("cannot read the answer: its size and number of chunks disagree"))

    def add(self, data: bytes) -> None:
        """Take one chunk as it came; a repeated one is passed over, a gap fails the answer."""
        index = int.from_bytes(data[:_INDEX_BYTES], "big")
        if self.is_over or index < len(self._chunks):
            return
        if index > len(self._chunks):
            # The bus keeps the order and loses nothing but by a reconnect at one of the ends.
            self.fail(errors.NoAnswer("the answer broke off: a part of it was lost on the bus"))
            return
        piece = memoryview(data)[_INDEX_BYTES:]
        self._size_bytes += len(piece)
        # Unannounced, a well-behaved sender has no more than its window under way.
        if len(piece) > rpc.CHUNK_BYTES or (self._expected is None and len(self._chunks) >= rpc.CHUNK_WINDOW):
            self.fail(errors.BadAnswer("cannot read the answer: more arrived than was announced"))
            return
        self._chunks.append(piece)
        self._digest.update(piece)
        self._progress.set()

    def fail(self, fault: errors.Fault) -> None:
        """End it: whoever waits for the whole gets this fault."""
        self._fault = self._fault or fault
        self._progress.set()

    async def whole(self, ends_at: float) -> bytes:
        """Wait for the rest, at most until `ends_at` (loop time) and at most `SILENCE_S` for each chunk.

        Raises:
            errors.NoAnswer: It did not come in time.
            errors.BadAnswer: The digest is another.
            errors.Fault: Whatever `fail` was given.
        """
        try:
            await self._until_over(ends_at)
        except TimeoutError as error:
            raise errors.NoAnswer("the answer broke off: its next part did not come in time") from error
        if self._fault is not None:
            raise self._fault
        if self._expected is None or self._digest.hexdigest() != self._expected.sha256:
            raise errors.BadAnswer("cannot read the answer: its digest is not the one announced")
        return b"".join(self._chunks)

    async def _until_over(self, ends_at: float) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout_at(ends_at) as deadline:
            while not self.is_over:
                deadline.reschedule(min(ends_at, loop.time() + SILENCE_S))
                self._progress.clear()
                await self._progress.wait()


async def send_or_log(sender: ChunkSender, subject: str, key: StreamKey, body: bytes) -> bool:
    """Send; whether it went out whole. A receiver that goes away is a line in our log, no more."""
    try:
        await sender.send(subject, key, body)
    except ReceiverGoneError as error:
        log.warning("answer_abandoned", subject=subject, size_bytes=len(body), reason=str(error))
        return False
    except nats.errors.Error as error:
        log.warning("answer_lost", subject=subject, size_bytes=len(body), reason=str(error))
        return False
    return True
