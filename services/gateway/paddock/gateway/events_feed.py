"""What happens, as it happens: every stored event once for the whole process, and the last few thousand in memory.

Whoever follows reads at its own pace. One that is slow, or begins in the past, reads from the stream until it has caught
up, so a follower costs no buffer. Events come republished by the server; a number that is missing, or a connection that
broke, sends followers to the stream, so nothing is passed over. Needs only the right to read.
"""

import asyncio
import collections
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Final

import msgspec
from nats.aio import msg as nats_msg

from paddock.bus import lifecycle, logs, safeclient
from paddock.contracts import errors
from paddock.gateway import replay

log = logs.get(__name__)

KEPT_EVENTS: Final = 4096
CHECK_S: Final = 2.0
"""Between two looks at the stream's end. An event lost on the way is noticed by the next one, or by the second look."""
READ_AGAIN_S: Final = 0.5
_MONITORS: Final = "mon.>"
_SEQUENCE_HEADER: Final = "Nats-Sequence"


class Item(msgspec.Struct, frozen=True):
    """One event: its number in the stream, what filters look at, and its JSON as it was stored."""

    sequence: int
    type: str
    project: str
    machine: str
    body: bytes


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which events somebody follows; None is any."""

    project: str | None = None
    machine: str | None = None
    types: tuple[str, ...] | None = None

    def fits(self, item: Item) -> bool:
        return (
            (self.project is None or item.project == self.project)
            and (self.machine is None or item.machine == self.machine)
            and (self.types is None or item.type in self.types)
        )

    def subjects(self) -> list[str]:
        """The same as subjects of the stream."""
        where = f"{self.project or '*'}.{self.machine or '*'}"
        return [f"{event_type}.{where}" for event_type in sorted(set(self.types or ("*.*",)))]


Listener = Callable[[Item | None], None]
"""Told of each event at once; None says that some may have been missed. Must not fail or wait."""


class EventsFeed:
    """The events of everybody; `run` keeps it going."""

    def __init__(
        self, nc: safeclient.SafeClient, *, kept: int = KEPT_EVENTS, check_s: float = CHECK_S
    ) -> None:
        self._nc = nc
        self._check_s = check_s
        self._items: collections.deque[Item] = collections.deque(maxlen=kept)
        self._head = 0
        self._epoch = ""
        self._expected = 0
        self._is_live = False
        self._news = asyncio.Event()
        self._check_now = lifecycle.Wakeup()
        self._listeners: set[Listener] = set()

    @property
    def is_live(self) -> bool:
        """Whether events arrive as they happen."""
        return self._is_live and self._nc.is_connected

    @property
    def epoch(self) -> str:
        """Which stream the numbers count."""
        return self._epoch

    @property
    def head(self) -> int:
        """The number of the newest event."""
        return self._head

    async def run(self, stop: asyncio.Event) -> None:
        """Keep up with the stream until `stop`."""
        unwatch = self._nc.watch(lost=self._check_now.set, restored=self._check_now.set)
        subscription = await self._nc.subscribe(_MONITORS, cb=self._on_event)
        try:
            while not stop.is_set():
                await self._check(
                    is_sudden=await self._check_now.wait(self._check_s if self._is_live else 0.0, stop)
                )
                if not self._is_live:
                    await lifecycle.pause(READ_AGAIN_S, stop)
        finally:
            unwatch()
            self._is_live = False
            with contextlib.suppress(*replay.FAILURES):
                await subscription.unsubscribe()

    @contextlib.contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Tell `listener` of every event while inside the block."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    async def start_after(self, epoch: str, sequence: int) -> None:
        """Check that following can go on after this number.

        Raises:
            errors.CursorExpired: Events behind it are no longer kept, or were numbered by another stream.
            errors.BusDown: Cannot be said now.
        """
        self._check_range(await replay.held(self._nc), epoch, sequence)

    async def follow(
        self, wanted: Wanted, *, epoch: str, after: int
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """Every event behind number `after` that fits, in order, for ever: its number and its JSON.

        Raises:
            errors.CursorExpired: The follower was so slow that the stream no longer keeps what comes next, or the stream
                was made anew.
        """
        position = after
        while True:
            news = self._news
            if self._epoch != epoch:
                raise errors.CursorExpired("cannot follow any further: the event stream was made anew")
            if position >= self._head:
                await news.wait()
            elif self._items and position + 1 >= self._items[0].sequence:
                fresh = self._behind(position)
                for item in fresh:
                    if wanted.fits(item):
                        yield item.sequence, item.body
                position = fresh[-1].sequence
            else:
                async with contextlib.aclosing(self._stored(wanted, epoch, position)) as stored:
                    async for sequence, body in stored:
                        position = max(position, sequence)
                        if body is not None:
                            yield sequence, body

    async def _stored(
        self, wanted: Wanted, epoch: str, after: int
    ) -> AsyncGenerator[tuple[int, bytes | None], None]:
        """What the stream holds behind `after`; ends with the number that was reached, and None."""
        try:
            there = await replay.held(self._nc)
            self._check_range(there, epoch, after)
            async with contextlib.aclosing(replay.read(self._nc, wanted.subjects(), after=after)) as read:
                async for sequence, body in read:
                    yield sequence, body
            yield there.last, None
        except errors.BusDown:
            await asyncio.sleep(READ_AGAIN_S)

    def _check_range(self, there: replay.Range, epoch: str, sequence: int) -> None:
        if there.epoch != epoch or not there.first - 1 <= sequence <= there.last:
            raise errors.CursorExpired(data={"epoch": there.epoch, "first": there.first, "last": there.last})

    def _behind(self, position: int) -> list[Item]:
        # From the right: followers are mostly at the end, and a deque's middle is far from both.
        newer = min(self._head - position, len(self._items))
        return [self._items[-nth] for nth in range(newer, 0, -1)]

    async def _on_event(self, message: nats_msg.Msg) -> None:
        sequence = int((message.headers or {}).get(_SEQUENCE_HEADER, 0))
        if sequence <= self._head:
            return
        if sequence != self._head + 1:
            self._missed()
        # mon.<project>.<noun>.<fact>.<machine or all>
        _, project, noun, fact, machine = message.subject.split(".")
        item = Item(sequence, f"{noun}.{fact}", project, "" if machine == "all" else machine, message.data)
        self._items.append(item)
        self._head = sequence
        self._tell(item)

    async def _check(self, *, is_sudden: bool) -> None:
        before = self._head
        try:
            there = await replay.held(self._nc)
        except errors.BusDown as fault:
            self._is_live = False
            log.debug("events_feed_down", detail=fault.detail)
            return
        # An event on its way to us is counted by the stream already; only what was missing twice is lost.
        overdue = there.last if is_sudden or not self._is_live else min(self._expected, there.last)
        if there.epoch != self._epoch or self._head < overdue or before > there.last:
            self._epoch, self._head = there.epoch, there.last
            self._missed()
            self._tell(None)
        self._expected = there.last
        self._is_live = True

    def _missed(self) -> None:
        # What is in memory no longer reaches without a gap to what comes: the stream fills it.
        self._items.clear()
        for listener in tuple(self._listeners):
            listener(None)

    def _tell(self, item: Item | None) -> None:
        if item is not None:
            for listener in tuple(self._listeners):
                listener(item)
        self._news.set()
        self._news = asyncio.Event()
