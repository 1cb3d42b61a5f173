"""Taking two things by turns, so that whatever the machine does meanwhile happens to both."""

import asyncio
import time
from collections.abc import Awaitable, Callable

Call = Callable[[], Awaitable[object]]


async def one_by_one(call: Call, count: int) -> list[float]:
    """Seconds each of `count` calls took, one after the other."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
    return took


async def by_turns(
    ours: Call, floor: Call, *, rounds: int, count: int, warm: int = 20
) -> tuple[list[list[float]], list[list[float]]]:
    """Rounds of both, alternating; the samples of each, by round."""
    await one_by_one(ours, warm)
    await one_by_one(floor, warm)
    mine, bare = [], []
    for _ in range(rounds):
        bare.append(await one_by_one(floor, count))
        mine.append(await one_by_one(ours, count))
    return mine, bare


async def rate(call: Call, *, count: int, width: int) -> float:
    """Calls a second with `width` of them in flight."""
    left = count

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(work())
    return count / (time.perf_counter() - began)
