"""Each service is killed at each of its commit points while twenty machines go by; all of them get where they should."""

import asyncio
import pathlib
import random
import signal

import pytest

from paddock.local import wiring
from tests.fault import ground as grounds

pytestmark = pytest.mark.fault

MACHINES = 20
LINGER_S = 0.5
"""How long at most the others go on after the first stands at the barrier."""

WHILE_CREATED: dict[wiring.ServiceName, tuple[str, ...]] = {
    "provisioner": ("before-lease", "provision:after-effect", "provision:after-commit", "before-ack"),
    "setup_pusher": ("before-lease", "setup:after-effect", "setup:after-commit", "before-ack"),
    "prober": ("before-lease", "probe:after-effect", "probe:after-commit", "before-ack"),
}
WHILE_CHANGED: dict[wiring.ServiceName, tuple[str, ...]] = {
    "provisioner": (),
    "setup_pusher": ("before-lease", "env:after-effect", "env:after-commit"),
    "prober": ("probe:after-effect", "probe:after-commit"),
}
WHILE_DELETED: dict[wiring.ServiceName, tuple[str, ...]] = {
    "provisioner": ("destroy:after-effect", "destroy:after-commit", "before-lease", "before-ack"),
    "setup_pusher": (),
    "prober": (),
}


class Killing:
    """One service that stops dead at a place, is killed there and started again without it."""

    def __init__(self, ground: grounds.Ground, service: wiring.ServiceName, chance: random.Random) -> None:
        self.ground, self.service, self.chance = ground, service, chance
        self.killed: list[str] = []

    async def arm(self, place: str) -> None:
        # Asked to end before it had begun to listen for that, a process ends all the same.
        assert await self.ground.fleet.stop(self.service) in {0, -signal.SIGTERM}
        await self.ground.fleet.start(self.service, barrier=place)

    async def strike(self, place: str) -> None:
        await self.ground.reached(self.service, place)
        await asyncio.sleep(self.chance.uniform(0, LINGER_S))  # so the others are at all kinds of places
        await self.ground.fleet.kill(self.service)
        await self.ground.fleet.start(self.service)
        self.killed.append(place)


@pytest.mark.parametrize("service", ["provisioner", "setup_pusher", "prober"])
async def test_twenty_machines_outlive_a_service_killed_at_each_of_its_commit_points(
    service: wiring.ServiceName, tmp_path: pathlib.Path, chance: random.Random
) -> None:
    async with grounds.opened(tmp_path) as ground:
        killing = Killing(ground, service, chance)
        ends = list(WHILE_DELETED[service])
        for place in WHILE_CREATED[service]:
            await killing.arm(place)
            machines = await ground.create(MACHINES)
            await killing.strike(place)
            await ground.until_active(machines)
            await ground.expect_whole(machines)

            for number, change in enumerate(WHILE_CHANGED[service] if place == "before-ack" else ()):
                await killing.arm(change)
                await ground.set_value(f"changed-{number}")
                await killing.strike(change)
                await ground.until_active(machines)
                await ground.expect_whole(machines)

            end = ends.pop(0) if ends else ""
            if end:
                await killing.arm(end)
            await ground.delete(machines)
            if end:
                await killing.strike(end)
            await ground.until_gone(machines)
            await ground.expect_nothing_left()
        await ground.until_told()

    wanted = [*WHILE_CREATED[service], *WHILE_CHANGED[service], *WHILE_DELETED[service]]
    assert sorted(killing.killed) == sorted(wanted)
