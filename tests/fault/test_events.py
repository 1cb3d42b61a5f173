"""Events repeated, shuffled or lost change nothing but the time it takes: the row is the work."""

import asyncio
import pathlib
import random

import pytest

from paddock.bus import streams
from paddock.contracts import subjects
from tests.fault import echo as echoes
from tests.fault import ground as grounds

pytestmark = pytest.mark.fault

MACHINES = 10
FACTS = "SELECT phase || generation || ' ' || seq || ' ' || env_applied || env_desired || health FROM machines ORDER BY id"


async def test_events_said_three_times_and_out_of_order_change_nothing(
    tmp_path: pathlib.Path, chance: random.Random
) -> None:
    async with grounds.opened(tmp_path) as ground, echoes.opened(ground, chance) as echo:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(echo.repeat(stop))
            machines = await ground.create(MACHINES)
            await ground.until_active(machines)
            await ground.set_value("second")
            await ground.until_active(machines)
            heard = len(echo.said)  # what comes later may miss the last round, and is in the history below
            stop.set()
        live = echo.repeated
        await ground.until_told()
        await echo.until_heard()
        await ground.until_active(machines)
        before = ground.query(FACTS)

        history = list(echo.said)
        await echo.say_again(history)  # all of it at once
        await echo.until_heard()
        await ground.until_told()

        assert ground.query(FACTS) == before
        assert live >= echoes.TIMES * heard > echoes.TIMES * MACHINES * 8
        assert echo.repeated == live + echoes.TIMES * len(history)
        await ground.expect_whole(machines)
        await ground.delete(machines)
        await ground.until_gone(machines)
        await echo.say_again(echo.said)
        await echo.until_heard()
        await ground.expect_nothing_left()


async def test_machines_live_their_whole_life_when_no_service_hears_any_event(
    tmp_path: pathlib.Path, chance: random.Random
) -> None:
    async with grounds.opened(tmp_path) as ground, echoes.opened(ground, chance) as echo:
        for durable in streams.WAKES:
            await echo.js.delete_consumer(subjects.EVENTS_STREAM, durable)

        machines = await ground.create(MACHINES)
        await ground.until_active(machines)
        await ground.set_value("second")
        await ground.until_active(machines)
        await ground.expect_whole(machines)
        await ground.delete(machines)
        await ground.until_gone(machines)

        await ground.expect_nothing_left()
        assert await echo.js.consumers_info(subjects.EVENTS_STREAM) == []


async def test_machines_live_their_whole_life_while_the_stream_is_emptied_again_and_again(
    tmp_path: pathlib.Path, chance: random.Random
) -> None:
    purges = 0

    async def purge(stop: asyncio.Event) -> None:
        nonlocal purges
        while not stop.is_set():
            await echo.js.purge_stream(subjects.EVENTS_STREAM)
            purges += 1
            await asyncio.sleep(chance.uniform(0.01, 0.2))

    async with grounds.opened(tmp_path) as ground, echoes.opened(ground, chance) as echo:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(purge(stop))
            machines = await ground.create(MACHINES)
            await ground.until_active(machines)
            await ground.set_value("second")
            await ground.until_active(machines)
            await ground.expect_whole(machines)
            await ground.delete(machines)
            await ground.until_gone(machines)
            stop.set()
        await ground.expect_nothing_left()

    assert purges > 10
