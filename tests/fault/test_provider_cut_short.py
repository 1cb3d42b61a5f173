"""The provisioner is killed at any line of making and removing sandboxes: each is found again, none is made twice."""

import asyncio
import pathlib
import random

import pytest

from tests.fault import ground as grounds
from tests.fault import host_view

pytestmark = pytest.mark.fault

MACHINES = 20
KILLS = 6
AT_WORK_S = 0.12
"""A sandbox is made in some 50 ms, four at a time: the kill comes while the next ones are."""


def records(ground: grounds.Ground) -> set[str]:
    folder = ground.data / "sandboxes"
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


async def strike(ground: grounds.Ground, chance: random.Random) -> bool:
    """Start a provisioner and kill it soon after it began with a sandbox. Returns whether there was one left to begin."""
    before = records(ground)
    await ground.fleet.start("provisioner")

    async def it_began() -> bool:
        return records(ground) != before

    try:
        await ground.until_so(it_began, within_s=2 * grounds.LEASE_S + 6.0)
    except AssertionError:
        return False
    await asyncio.sleep(chance.uniform(0, AT_WORK_S))
    await ground.fleet.kill("provisioner")
    return True


async def test_a_provisioner_killed_while_it_makes_sandboxes_makes_each_once(
    tmp_path: pathlib.Path, chance: random.Random
) -> None:
    kills = 0
    async with grounds.opened(
        tmp_path, services=("gateway", "registrar", "setup_pusher", "prober")
    ) as ground:
        machines = await ground.create(MACHINES)
        while kills < KILLS and await strike(ground, chance):
            kills += 1
        if kills == KILLS:
            await ground.fleet.start("provisioner")
        await ground.until_active(machines)

        await ground.expect_whole(machines)
        assert {(await ground.machine(one)).generation for one in machines} == {1}

        await ground.fleet.kill("provisioner")
        await ground.delete(machines)
        while kills < 2 * KILLS and await strike(ground, chance):
            kills += 1
        if ground.fleet.running("provisioner").ended.is_set():
            await ground.fleet.start("provisioner")
        await ground.until_gone(machines)
        await ground.expect_nothing_left()

    print("kills:", kills)
    assert kills >= 2
    assert host_view.launchers(tmp_path) == []
