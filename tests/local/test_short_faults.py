"""Every service is killed once while machines come, change and go. The long form is tests/fault, by `make fault`."""

import asyncio
import pathlib
import random

from paddock.local import wiring
from tests.fault import ground as grounds

MACHINES = 3
LEASE_S = 2.0


async def test_machines_outlive_one_kill_of_each_service_and_of_each_server(tmp_path: pathlib.Path) -> None:
    chance = random.Random(7)
    killed: list[str] = []

    async def kill(*names: wiring.ServiceName) -> None:
        for name in names:
            await asyncio.sleep(chance.uniform(0.1, 0.4))
            await ground.fleet.restart(name)
            killed.append(name)

    async with grounds.opened(tmp_path, lease_s=LEASE_S, step=f"sleep 0.5; {grounds.MARK}") as ground:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kill("provisioner", "setup_pusher", "prober"))
            machines = await ground.create(MACHINES)
        await ground.until_active(machines, within_s=60)
        await ground.expect_whole(machines)

        await ground.fleet.nats.kill()
        await ground.fleet.redis.kill()
        await kill("registrar", "gateway")
        await ground.set_value("changed")
        await ground.until_active(machines, within_s=60)
        await ground.expect_whole(machines)

        await ground.delete(machines)
        await ground.until_gone(machines, within_s=60)
        await ground.expect_nothing_left()

    assert sorted(killed) == sorted(wiring.SERVICES)


async def test_a_service_killed_at_its_commit_points_is_taken_over(tmp_path: pathlib.Path) -> None:
    places: dict[wiring.ServiceName, str] = {
        "provisioner": "provision:after-effect",
        "setup_pusher": "setup:after-effect",
        "prober": "probe:after-commit",
    }
    async with grounds.opened(tmp_path, lease_s=LEASE_S, services=("gateway", "registrar")) as ground:
        for service, place in places.items():
            await ground.fleet.start(service, barrier=place)
        machines = await ground.create(MACHINES)
        for service, place in places.items():
            await ground.reached(service, place, within_s=60)
            await ground.fleet.restart(service)
        await ground.until_active(machines, within_s=60)

        await ground.expect_whole(machines)
        attempts = ground.query(
            "SELECT DISTINCT attempt FROM stage_runs WHERE stage IN ('provision', 'setup')"
        )
        assert attempts == [0]
