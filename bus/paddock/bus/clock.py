"""What time it is: the one way to ask, so that a test can answer.

`now_ms` is for what is written down or sent, `monotonic` for what is measured here. Neither is the database's
clock, which alone decides about leases and limits.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Whoever needs the time takes one of these."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        ...


class SystemClock:
    """The clock of this host."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class SyncedClock:
    """Another host's time, carried on by our own monotonic clock.

    For a machine whose wall clock may be wrong or be set while it runs: it learns the time from answers that
    carry it. Until the first `sync` it is the clock of this host.
    """

    def __init__(self, source: Clock | None = None) -> None:
        self._source: Clock = source or SystemClock()
        self._offset_ms: float | None = None

    def sync(self, their_now_ms: int, *, round_trip_s: float = 0.0) -> None:
        """Take over their time.

        Args:
            their_now_ms: What an answer said, unix milliseconds.
            round_trip_s: How long that answer took in all; half of it is taken to be the way back.
        """
        self._offset_ms = their_now_ms + round_trip_s * 500 - self._source.monotonic() * 1000

    def now_ms(self) -> int:
        if self._offset_ms is None:
            return self._source.now_ms()
        return int(self._offset_ms + self._source.monotonic() * 1000)

    def monotonic(self) -> float:
        return self._source.monotonic()


class ManualClock:
    """A clock that stands still until told; for tests."""

    def __init__(self, now_ms: int = 1_750_000_000_000) -> None:
        self._now_ms = now_ms
        self._monotonic_ms = 0

    def advance(self, seconds: float) -> None:
        """Let this much time pass."""
        self._now_ms += round(seconds * 1000)
        self._monotonic_ms += round(seconds * 1000)

    def set_wall(self, now_ms: int) -> None:
        """Set the wall clock, as an administrator might; no time passes."""
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic(self) -> float:
        return self._monotonic_ms / 1000
