"""Unlucky moments: asked for twice, retried, deleted and killed while something else is under way."""

import asyncio
import pathlib
import random

import pytest

from paddock.client import machines as client_machines
from paddock.contracts import phases
from paddock.local import wiring
from tests.fault import ground as grounds
from tests.fault import host_view

pytestmark = pytest.mark.fault

STORM_S = 25.0


async def test_a_gateway_killed_in_mid_create_makes_one_machine_for_each_token(
    tmp_path: pathlib.Path, chance: random.Random
) -> None:
    async with grounds.opened(tmp_path) as ground:
        machines: list[str] = []
        for _ in range(4):
            tokens = [client_machines.new_token() for _ in range(5)]
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(ground.create_one(token)) for token in tokens]
                await asyncio.sleep(chance.uniform(0, 0.06))
                await ground.fleet.restart("gateway")
            again = [await ground.create_one(token) for token in tokens]

            assert [one.id for one in again] == [one.result().id for one in asked]
            machines += [one.id for one in again]
        await ground.until_active(machines)

        assert len(set(machines)) == len(machines)
        await ground.expect_whole(machines)


async def test_machines_wait_for_a_registrar_that_is_away_for_longer_than_three_attempts(
    tmp_path: pathlib.Path, chance: random.Random
) -> None:
    async with grounds.opened(tmp_path) as ground:
        machines = await ground.create(10)
        await asyncio.sleep(chance.uniform(0, 1.0))
        await ground.fleet.kill("registrar")
        machines += await ground.create(10)
        await asyncio.sleep(8.0)  # attempts of a known failure would be used up after four
        await ground.fleet.start("registrar")
        await ground.until_active(machines)

        await ground.expect_whole(machines)
        attempts = ground.query(
            "SELECT DISTINCT attempt FROM stage_runs WHERE stage IN ('provision', 'setup')"
        )
        assert attempts == [0]


async def test_a_failed_machine_is_retried_while_its_old_sandbox_still_runs(tmp_path: pathlib.Path) -> None:
    async with grounds.opened(tmp_path, step=f"test -e ~/allowed && {grounds.MARK}") as ground:
        (machine,) = await ground.create(1)
        failed = await ground.until(machine, lambda now: now.phase is phases.Phase.FAILED)
        old = ground.sandbox(machine)
        (host_view.home(ground.data, machine) / "allowed").touch()

        await ground.client.machines.retry(machine)
        await ground.until_active([machine])

        assert failed.reason is not None
        assert failed.reason.stage == "setup"
        new = ground.sandbox(machine)
        assert (old.sandbox_id, new.sandbox_id) == (f"{machine}-1", f"{machine}-2")
        await ground.expect_whole([machine])


async def test_machines_deleted_while_they_are_set_up_leave_nothing(tmp_path: pathlib.Path) -> None:
    async with grounds.opened(tmp_path, step=f"{grounds.MARK}; (sleep 300 &) ; sleep 300") as ground:
        machines = await ground.create(10)

        async def all_are_in_it() -> bool:
            return all((host_view.home(ground.data, one) / "mark").exists() for one in machines)

        await ground.until_so(all_are_in_it, about=machines)
        where = {(await ground.machine(one)).phase for one in machines}

        await ground.delete(machines)
        await ground.until_gone(machines, within_s=30)

        assert where == {phases.Phase.SETTING_UP}
        await ground.expect_nothing_left()


async def test_twenty_machines_outlive_a_storm_of_kills_of_every_service(
    tmp_path: pathlib.Path, chance: random.Random
) -> None:
    """With the lease of production: whoever is killed here leaves work that waits fifteen seconds for another."""
    killed: dict[str, int] = dict.fromkeys(wiring.SERVICES, 0)

    async def storm(seconds: float) -> None:
        ends_at = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < ends_at:
            await asyncio.sleep(chance.uniform(0.2, 2.0))
            name = chance.choice(wiring.SERVICES)
            await ground.fleet.restart(name)
            killed[name] += 1

    async with grounds.opened(tmp_path, lease_s=15.0, step=f"sleep 0.5; {grounds.MARK}") as ground:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(storm(STORM_S))
            machines = await ground.create(20)
        await ground.until_active(machines)
        await ground.expect_whole(machines)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(storm(STORM_S / 4))
            await ground.set_value("second")
            await ground.delete(machines[:10])
        await ground.until_gone(machines[:10])
        await ground.until_active(machines[10:])
        await ground.expect_whole(machines[10:])
        await ground.until_told()

    print("killed:", killed)
    assert sum(killed.values()) > STORM_S / 3
