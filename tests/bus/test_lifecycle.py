"""Loops run until stopped, are never lost, and end in order."""

import asyncio
import subprocess
import sys

import pytest

from paddock.bus import lifecycle
from tests.support import jumploop


def test_a_round_is_due_every_period_from_the_first_on() -> None:
    async def main() -> list[int]:
        rounds: list[int] = []
        stop = asyncio.Event()
        start = jumploop.seconds()
        async for _ in lifecycle.every(60, stop):
            rounds.append(jumploop.seconds() - start)
            await asyncio.sleep(10)
            if len(rounds) == 3:
                stop.set()
        return rounds

    assert jumploop.run(main()) == [0, 60, 120]


def test_rounds_missed_by_a_long_body_are_not_made_up_for() -> None:
    async def main() -> list[int]:
        rounds: list[int] = []
        stop = asyncio.Event()
        start = jumploop.seconds()
        async for _ in lifecycle.every(60, stop):
            rounds.append(jumploop.seconds() - start)
            await asyncio.sleep(200 if len(rounds) == 1 else 1)
            if len(rounds) == 4:
                stop.set()
        return rounds

    assert jumploop.run(main()) == [0, 200, 260, 320]


def test_stop_lets_the_round_in_flight_finish() -> None:
    finished: list[int] = []

    async def beat(stop: asyncio.Event) -> None:
        async for _ in lifecycle.every(60, stop):
            await asyncio.sleep(10)
            finished.append(jumploop.seconds())

    async def main() -> int:
        stop = asyncio.Event()
        start = jumploop.seconds()
        asyncio.get_running_loop().call_later(65, stop.set)
        await lifecycle.run({"beat": beat}, stop, drain_s=30)
        return jumploop.seconds() - start

    assert jumploop.run(main()) == 70
    assert len(finished) == 2


def test_stop_ends_a_pause_at_once() -> None:
    async def main() -> tuple[bool, int]:
        stop = asyncio.Event()
        start = jumploop.seconds()
        asyncio.get_running_loop().call_later(5, stop.set)
        goes_on = await lifecycle.pause(3600, stop)
        return goes_on, jumploop.seconds() - start

    assert jumploop.run(main()) == (False, 5)


def test_a_loop_still_running_after_the_drain_time_is_cancelled() -> None:
    ended: list[str] = []

    async def stubborn(_stop: asyncio.Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def main() -> int:
        stop = asyncio.Event()
        stop.set()
        start = jumploop.seconds()
        with pytest.raises(TimeoutError):
            await lifecycle.run({"stubborn": stubborn}, stop, drain_s=20)
        return jumploop.seconds() - start

    assert jumploop.run(main()) == 20
    assert ended == ["cancelled"]


def test_a_loop_that_fails_is_seen_and_its_siblings_end() -> None:
    ended: list[str] = []

    async def fails(_stop: asyncio.Event) -> None:
        await asyncio.sleep(1)
        raise KeyError("a bug")

    async def sibling(stop: asyncio.Event) -> None:
        try:
            await stop.wait()
        finally:
            ended.append("sibling")

    with pytest.raises(ExceptionGroup) as seen:
        jumploop.run(lifecycle.run({"fails": fails, "sibling": sibling}, asyncio.Event(), drain_s=1))

    assert seen.group_contains(KeyError)
    assert ended == ["sibling"]


def test_a_loop_that_ends_unasked_is_a_failure() -> None:
    async def ends(_stop: asyncio.Event) -> None:
        await asyncio.sleep(1)

    with pytest.raises(ExceptionGroup) as seen:
        jumploop.run(lifecycle.run({"ends": ends}, asyncio.Event(), drain_s=1))

    assert seen.group_contains(lifecycle.LoopEndedError, match="ends")


def test_a_wakeup_set_while_nobody_waits_is_kept_and_taken_once() -> None:
    async def main() -> list[bool]:
        wakeup = lifecycle.Wakeup()
        wakeup.set()
        wakeup.set()
        return [await wakeup.wait(60), await wakeup.wait(60)]

    assert jumploop.run(main()) == [True, False]


def test_a_wakeup_ends_the_wait_at_once() -> None:
    async def main() -> tuple[bool, int]:
        wakeup = lifecycle.Wakeup()
        start = jumploop.seconds()
        asyncio.get_running_loop().call_later(3, wakeup.set)
        return await wakeup.wait(60, asyncio.Event()), jumploop.seconds() - start

    assert jumploop.run(main()) == (True, 3)


def test_stop_ends_the_wait_for_a_wakeup() -> None:
    async def main() -> tuple[bool, int]:
        stop = asyncio.Event()
        start = jumploop.seconds()
        asyncio.get_running_loop().call_later(3, stop.set)
        return await lifecycle.Wakeup().wait(60, stop), jumploop.seconds() - start

    assert jumploop.run(main()) == (False, 3)


def test_a_wakeup_not_taken_by_a_cancelled_wait_is_kept() -> None:
    async def main() -> bool:
        wakeup = lifecycle.Wakeup()
        waiting = asyncio.create_task(wakeup.wait(60))
        await asyncio.sleep(0)
        waiting.cancel()
        wakeup.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return await wakeup.wait(60)

    assert jumploop.run(main()) is True


_HANGING = """
import asyncio
from paddock.bus import lifecycle

async def main():
    stop = asyncio.Event()
    lifecycle.on_signals(stop)
    print("ready", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_the_first_signal_stops_and_the_second_exits_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", _HANGING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().strip()]
        process.terminate()
        said.append(process.stdout.readline().strip())
        process.terminate()
        code = process.wait(5)

    assert said == ["ready", "stopping"]
    assert code == 128 + 15
