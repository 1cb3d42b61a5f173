"""Long work in slices: stopped between two, never in the way of anybody."""

import asyncio
import threading
import time

import pytest

from paddock.contracts import errors, rpc
from paddock.daemon import file_slices
from tests.support import processes


def counting(steps: int, closed: list[str]) -> "file_slices.Slices[int]":
    try:
        for _ in range(steps):
            time.sleep(0.005)
            yield
        return steps
    finally:
        closed.append(threading.current_thread().name)


async def test_the_result_is_that_of_the_work() -> None:
    assert await file_slices.start(counting(30, [])) == 30


async def test_a_fault_is_that_of_the_work() -> None:
    def failing() -> "file_slices.Slices[None]":
        yield
        raise errors.DiskFull

    with pytest.raises(errors.DiskFull):
        await file_slices.start(failing())


async def test_cancelled_it_stops_within_a_slice_and_cleans_up() -> None:
    closed: list[str] = []
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await file_slices.start(counting(10_000, closed))
    await processes.until(lambda: closed)

    assert time.monotonic() - began < 5


async def test_many_share_the_threads() -> None:
    """More than there are threads, each longer than a slice: short work is not behind all of long work."""
    long = [file_slices.start(counting(200, [])) for _ in range(20)]
    short = file_slices.start(counting(1, []))
    await short

    assert not all(work.done() for work in long)
    for work in long:
        work.cancel()


async def test_work_stopped_in_the_middle_has_an_unknown_outcome() -> None:
    def endless() -> "file_slices.Slices[rpc.Done]":
        while True:
            time.sleep(0.001)
            yield

    work = file_slices.work(file_slices.start(endless()), "remove it", can_stop=True)
    assert work.cancel is not None
    work.cancel()
    await asyncio.wait({work.done})

    with pytest.raises(errors.OutcomeUnknown, match=r"^cannot remove it: "):
        work.outcome()


def test_a_loop_that_ends_takes_its_work_with_it() -> None:
    closed: list[str] = []

    async def begin() -> None:
        file_slices.start(counting(10_000, closed))
        await asyncio.sleep(0.02)

    began = time.monotonic()
    asyncio.run(begin())

    assert len(closed) == 1
    assert time.monotonic() - began < 5
