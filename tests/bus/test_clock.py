"""Clocks: ours, another host's, and one that stands still."""

import time

from paddock.bus import clock


def test_the_system_clock_tells_unix_time_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    told = clock.SystemClock().now_ms()
    after = time.time_ns() // 1_000_000

    assert before <= told <= after


def test_a_manual_clock_moves_only_when_told() -> None:
    manual = clock.ManualClock(1000)
    first = (manual.now_ms(), manual.monotonic())
    manual.advance(2.5)

    assert first == (1000, 0.0)
    assert (manual.now_ms(), manual.monotonic()) == (3500, 2.5)


def test_a_synced_clock_follows_the_other_host_though_our_wall_clock_is_set() -> None:
    ours = clock.ManualClock(5_000)
    synced = clock.SyncedClock(ours)
    synced.sync(1_000_000)
    ours.set_wall(99)
    ours.advance(3)

    assert synced.now_ms() == 1_003_000


def test_a_synced_clock_counts_half_the_round_trip_as_the_way_back() -> None:
    synced = clock.SyncedClock(clock.ManualClock())
    synced.sync(1_000_000, round_trip_s=0.4)

    assert synced.now_ms() == 1_000_200


def test_a_synced_clock_is_ours_until_the_first_sync() -> None:
    assert clock.SyncedClock(clock.ManualClock(4711)).now_ms() == 4711
