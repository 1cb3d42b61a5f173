"""What the keeper waits for: descriptors and moments. One thread, epoll, and no call that blocks.

Each descriptor that is ready is served once a turn, so whoever serves it does a bounded piece of work and nobody starves.
A handler may be called when nothing is ready: its descriptor's number can have changed hands in the same turn.
"""

import heapq
import select
from collections.abc import Callable
from time import CLOCK_BOOTTIME, clock_gettime, monotonic

READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT
_EVENTS_MAX = 256
_WAIT_MAX_S = 3600.0


class Timer:
    """One moment in the future; `cancel` it or let it come."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None

    def __lt__(self, other: "Timer") -> bool:
        return self.due < other.due


class Loop:
    """The loop; `turn` it until done."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._timers: list[Timer] = []

    def watch(self, fd: int, handler: Callable[[], None], events: int = READABLE) -> None:
        """Call `handler` in each turn in which `fd` is ready, or broken."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """No longer serve `fd`; before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        timer = Timer(monotonic() + delay_s, call)
        heapq.heappush(self._timers, timer)
        return timer

    def turn(self) -> None:
        """Wait until something is ready or due, and serve all that is."""
        for fd, _ in self._epoll.poll(self._wait_s(), _EVENTS_MAX):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler()
        now = monotonic()
        while self._timers and self._timers[0].due <= now:
            call = heapq.heappop(self._timers).call
            if call is not None:
                call()

    def _wait_s(self) -> float:
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        # At most an hour: epoll counts milliseconds and takes no more than 24 days of them.
        return min(max(0.0, self._timers[0].due - monotonic()), _WAIT_MAX_S) if self._timers else _WAIT_MAX_S


def uptime_ms() -> int:
    """Milliseconds since the host booted, suspended or not."""
    return int(clock_gettime(CLOCK_BOOTTIME) * 1000)
