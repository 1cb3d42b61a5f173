"""The sandbox itself dies: its machine is made anew in the same HOME, and fails with the reason when that goes on."""

import os
import pathlib
import signal

import pytest

from paddock.contracts import phases
from tests.fault import ground as grounds

pytestmark = pytest.mark.fault


def kill_sandbox(ground: grounds.Ground, machine: str) -> None:
    os.kill(ground.sandbox(machine).pid, signal.SIGKILL)


async def is_next(ground: grounds.Ground, machine: str, generation: int) -> None:
    await ground.until(machine, lambda now: now.generation == generation and grounds.is_settled(now))


async def test_a_killed_sandbox_is_made_anew_in_the_same_home(tmp_path: pathlib.Path) -> None:
    async with grounds.opened(tmp_path) as ground:
        machines = await ground.create(5)
        await ground.until_active(machines)
        for one in machines:
            await ground.said(one, "sh", "-c", "echo kept > ~/work")

        for one in machines:
            kill_sandbox(ground, one)
        for one in machines:
            await is_next(ground, one, 2)

        # What was pushed is remembered in HOME, so the setup step did not run again.
        await ground.expect_whole(machines)
        assert [await ground.said(one, "cat", "work") for one in machines] == ["kept\n"] * len(machines)
        history = await ground.client.machines.history(machines[0])
        assert [(one.generation, bool(one.end_reason)) for one in history.sandboxes] == [
            (1, True),
            (2, False),
        ]


async def test_a_sandbox_that_dies_while_no_provisioner_runs_is_made_anew_when_one_is_back(
    tmp_path: pathlib.Path,
) -> None:
    async with grounds.opened(tmp_path) as ground:
        machines = await ground.create(3)
        await ground.until_active(machines)

        await ground.fleet.kill("provisioner")
        for one in machines[:2]:
            kill_sandbox(ground, one)
        await ground.fleet.start("provisioner")
        for one in machines[:2]:
            await is_next(ground, one, 2)

        await ground.expect_whole(machines)
        assert (await ground.machine(machines[2])).generation == 1


async def test_a_sandbox_that_dies_more_than_three_times_in_ten_minutes_fails_with_the_reason(
    tmp_path: pathlib.Path,
) -> None:
    async with grounds.opened(tmp_path) as ground:
        (machine,) = await ground.create(1)
        for generation in (1, 2, 3, 4):
            await is_next(ground, machine, generation)
            kill_sandbox(ground, machine)

        failed = await ground.until(machine, lambda now: now.phase is phases.Phase.FAILED)
        assert failed.reason is not None
        assert (failed.reason.stage, failed.generation) == ("sandbox", 4)
        assert "SIGKILL" in failed.reason.message
        assert "3 times" in failed.reason.message
        assert ground.sandboxes() == []

        await ground.client.machines.retry(machine)
        await is_next(ground, machine, 5)
        await ground.expect_whole([machine])
