"""The daemon of a machine is killed: its supervisor starts it again, and while it is away everybody can see so."""

import asyncio
import contextlib
import os
import pathlib
import random
import signal
from collections.abc import AsyncIterator

import pytest

from paddock.bus import clock
from paddock.contracts import errors, phases
from paddock.contracts.api import machines as api
from tests.fault import ground as grounds
from tests.fault import host_view, test_servers

pytestmark = pytest.mark.fault


async def stages(ground: grounds.Ground, machine: str) -> list[str]:
    """What was done in the machine, and came to an end."""
    history = await ground.client.machines.history(machine)
    return [str(one.stage) for one in history.runs if one.outcome == "done" and one.lane == phases.Lane.GUEST]


@contextlib.asynccontextmanager
async def kept_dead(ground: grounds.Ground, machine: str) -> AsyncIterator[None]:
    """The machine without its daemon: killed, and the supervisor held so that it starts no other."""
    sandbox = ground.sandbox(machine)
    os.kill(sandbox.pid, signal.SIGSTOP)
    try:
        os.kill(sandbox.daemons[0], signal.SIGKILL)
        yield
    finally:
        os.kill(sandbox.pid, signal.SIGCONT)


async def test_a_killed_daemon_is_started_again_and_its_machine_stays_active_and_is_probed_again(
    tmp_path: pathlib.Path,
) -> None:
    async with grounds.opened(tmp_path) as ground:
        machines = await ground.create(5)
        await ground.until_active(machines)
        await ground.until_told()
        moves = {one: (await ground.client.machines.history(one)).moves for one in machines}
        before = {one: ground.sandbox(one) for one in machines}

        for one in machines:
            os.kill(before[one].daemons[0], signal.SIGKILL)

        async def all_are_done_again() -> bool:
            done = [await stages(ground, one) for one in machines]
            return done == [["setup", "probe", "setup", "probe"]] * len(machines)

        await ground.until_so(all_are_done_again, about=machines)
        await ground.until_active(machines)

        await ground.expect_whole(machines)
        after = {one: ground.sandbox(one) for one in machines}
        assert {one: box.pid for one, box in after.items()} == {one: box.pid for one, box in before.items()}
        assert not any(set(after[one].daemons) & set(before[one].daemons) for one in machines)
        assert {one: (await ground.client.machines.history(one)).moves for one in machines} == moves


async def test_a_daemon_kept_dead_is_offline_within_two_beats_with_its_reason_on_show_and_back_at_once(
    tmp_path: pathlib.Path,
) -> None:
    def is_away(machine: api.Machine) -> bool:
        return machine.connection is phases.Connection.OFFLINE

    async with grounds.opened(tmp_path) as ground:
        (machine, other) = await ground.create(2)
        await ground.until_active([machine, other])
        await asyncio.sleep(test_servers.OFFLINE_S)  # the watcher has to have listened for two beats

        began_s = clock.SystemClock().monotonic()
        async with kept_dead(ground, machine):
            with pytest.raises(errors.MachineOffline):
                await ground.client.machines.exec(machine, ["true"])
            refused_s = clock.SystemClock().monotonic() - began_s
            await ground.until(machine, is_away, within_s=test_servers.OFFLINE_S)
            away = await ground.until(machine, lambda now: now.health is phases.Health.DEGRADED)
        back = await ground.until(machine, grounds.is_settled)

        told = test_servers.connections_told(ground, machine)
        untouched = await ground.machine(other)
        await ground.expect_whole([machine, other])
    assert refused_s < test_servers.OFFLINE_S / 4
    assert away.phase is phases.Phase.ACTIVE
    assert "ping" in away.health_reason
    assert away.last_seen_at is not None
    assert (back.connection, back.generation) == (phases.Connection.ONLINE, 1)
    assert told == [phases.Connection.ONLINE, phases.Connection.OFFLINE, phases.Connection.ONLINE]
    assert (untouched.connection, untouched.health) == (phases.Connection.ONLINE, phases.Health.WELL)


async def test_daemons_killed_while_setting_up_lose_no_machine(
    tmp_path: pathlib.Path, chance: random.Random
) -> None:
    async with grounds.opened(tmp_path, step=f"sleep 1; {grounds.MARK}") as ground:
        machines = await ground.create(5)
        for one in machines:
            await ground.until(one, lambda now: now.phase in phases.GUEST_REACHABLE)
            await asyncio.sleep(chance.uniform(0, 0.5))
            for daemon in ground.sandbox(one).daemons:
                os.kill(daemon, signal.SIGKILL)
        await ground.until_active(machines)

        # A command whose end nobody saw is run again by a new run, after what was left of it was killed.
        await ground.expect_whole(machines, has_one_mark=False)
        marks = [(host_view.home(ground.data, one) / "mark").read_text().split() for one in machines]
        assert all(1 <= len(one) <= 2 for one in marks)
