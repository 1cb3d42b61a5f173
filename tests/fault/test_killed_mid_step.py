"""Services die while a setup step runs inside the machines: whoever takes over joins the command that is under way.

No commit point of a service is near: the step has begun, and the mark that it was done is not written yet. Only the names of
calls, kept by each machine, stand between that and a second run.
"""

import asyncio
import os
import pathlib
import random

import pytest

from tests.fault import ground as grounds
from tests.fault import host_view

pytestmark = pytest.mark.fault

MACHINES = 20


def steps_begun(ground: grounds.Ground, machines: list[str]) -> list[int]:
    """How often the step was begun in each machine, as its HOME has it."""
    files = [host_view.home(ground.data, one) / "begun" for one in machines]
    return [len(file.read_text().split()) if file.exists() else 0 for file in files]


def steps_marked(ground: grounds.Ground, machines: list[str]) -> list[str]:
    """Machines in which the setup's own digest of the step is written."""
    return [
        one
        for one in machines
        if any(
            name.startswith("step-") for name in _names(host_view.home(ground.data, one) / ".paddock/setup")
        )
    ]


def _names(folder: pathlib.Path) -> list[str]:
    return os.listdir(folder) if folder.exists() else []  # noqa: PTH208 - names are all we need


@pytest.mark.parametrize(
    "step_s",
    [
        pytest.param(2.0, id="which-ends-before-the-takeover"),
        pytest.param(3 * grounds.LEASE_S, id="which-still-runs-at-the-takeover"),
    ],
)
async def test_a_step_under_way_when_its_pusher_dies_runs_once(
    step_s: float, tmp_path: pathlib.Path, chance: random.Random
) -> None:
    step = f"echo begun >> ~/begun; sleep {step_s}; {grounds.MARK}"
    async with grounds.opened(tmp_path, step=step) as ground:
        machines = await ground.create(MACHINES)

        async def one_is_in_it() -> bool:
            return 1 in steps_begun(ground, machines)

        await ground.until_so(one_is_in_it, about=machines)
        await asyncio.sleep(chance.uniform(0, step_s / 2))
        await ground.fleet.kill("setup_pusher")
        cut_short = sum(steps_begun(ground, machines)) - len(steps_marked(ground, machines))
        await ground.fleet.start("setup_pusher")
        await ground.until_active(machines)

        assert cut_short > 0  # else nothing was tried here
        assert steps_begun(ground, machines) == [1] * MACHINES
        await ground.expect_whole(machines)


async def test_a_step_under_way_when_the_bus_and_its_pusher_die_runs_once(
    tmp_path: pathlib.Path, chance: random.Random
) -> None:
    step = f"echo begun >> ~/begun; sleep {2 * grounds.LEASE_S}; {grounds.MARK}"
    async with grounds.opened(tmp_path, step=step) as ground:
        machines = await ground.create(MACHINES // 2)

        async def all_are_in_it() -> bool:
            return steps_begun(ground, machines) == [1] * len(machines)

        await ground.until_so(all_are_in_it, about=machines)
        cut_short = len(machines) - len(steps_marked(ground, machines))
        await ground.fleet.nats.kill()
        await asyncio.sleep(chance.uniform(0, 1.0))
        await ground.fleet.restart("setup_pusher")
        await ground.until_active(machines)

        assert cut_short > 0
        assert steps_begun(ground, machines) == [1] * len(machines)
        await ground.expect_whole(machines)
