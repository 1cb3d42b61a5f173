"""The stage `probe` in its process: real store, real bus, a real daemon."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from paddock.contracts import events, phases
from paddock.prober import manager, settings, stages
from paddock.store import env_vars, machines, outbox, projects, runner, sandboxes, stage_runs
from tests.setup_pusher import machine as guests
from tests.setup_pusher import states
from tests.support import databases, house, processes


@contextlib.asynccontextmanager
async def probing(ground: house.House, machine: guests.Machine) -> AsyncIterator[None]:
    """The stage, with a sweep that does not wait for events."""
    stage = stages.ProbeStage(ground.store, machine, actor="prober")
    works = runner.Runner(
        ground.store, owner="prober", node="here", stages={phases.Stage.PROBE: stage}, sweep_s=0.03
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(works.run(stop))
        try:
            yield
        finally:
            stop.set()


def exec_probe(script: str) -> projects.Blueprint:
    return projects.Blueprint(probes=[projects.Probe(kind="exec", command=["sh", "-c", script], timeout_s=5)])


async def became(ground: house.House, machine: guests.Machine, phase: phases.Phase) -> machines.Machine:
    found: machines.Machine = await ground.until(
        lambda tx: machines.get(tx, machine.id), lambda now: now.phase is phase
    )
    return found


async def in_health(ground: house.House, machine: guests.Machine, health: phases.Health) -> machines.Machine:
    found: machines.Machine = await ground.until(
        lambda tx: machines.get(tx, machine.id), lambda now: now.health is health
    )
    return found


async def told(ground: house.House) -> list[str]:
    """The types of the events written so far."""
    async with ground.store.read() as tx:
        return [events.decode(bytes(row.body)).type for row in await outbox.unsent(tx, limit=1000)]


async def probe_again(ground: house.House, machine: guests.Machine) -> None:
    await states.queue(ground.store, machine.id, phases.Stage.PROBE)


async def probe_runs(ground: house.House, machine: guests.Machine) -> list[stage_runs.Run]:
    async with ground.store.read() as tx:
        return [run for run in await stage_runs.history(tx, machine.id) if run.stage is phases.Stage.PROBE]


@pytest.mark.parametrize("kind", databases.KINDS)
async def test_a_machine_that_answers_becomes_active_and_well(
    ground: house.House, machine: guests.Machine
) -> None:
    async with machine.booted() as boot, probing(ground, machine):
        await states.probing(ground.store, machine.id, boot)

        now = await became(ground, machine, phases.Phase.ACTIVE)

    assert (now.health, now.active_at is None) == (phases.Health.WELL, False)
    assert (await told(ground))[-2:] == [events.MACHINE_PROBE_SUCCEEDED, events.MACHINE_ACTIVATED]


async def test_an_event_wakes_the_service(ground: house.House, machine: guests.Machine) -> None:
    async with (
        machine.booted() as boot,
        ground.serving(ground.settings_for(settings.Settings), manager.serve),
    ):
        await states.probing(ground.store, machine.id, boot)
        async with ground.store.read() as tx:
            rows = await outbox.unsent(tx, limit=100)
        stream = (await ground.bus.service("registrar")).jetstream()
        for row in rows:
            await stream.publish(row.subject, row.body)

        now = await became(ground, machine, phases.Phase.ACTIVE)

    assert now.health is phases.Health.WELL


async def test_a_probe_that_fails_is_tried_again_and_told_once(
    ground: house.House, machine: guests.Machine
) -> None:
    async with machine.booted() as boot, probing(ground, machine):
        await states.probing(ground.store, machine.id, boot, exec_probe("echo 1 >> tries; [ -e works ]"))
        await processes.until(lambda: tries(machine) >= 3)
        (machine.home / "works").touch()

        await became(ground, machine, phases.Phase.ACTIVE)

    (run,) = await probe_runs(ground, machine)
    assert run.attempt >= 3
    assert (await told(ground)).count(events.MACHINE_PROBE_FAILED) == 1


def tries(machine: guests.Machine) -> int:
    path = machine.home / "tries"
    return len(path.read_text().split()) if path.exists() else 0


async def test_every_probe_must_succeed(ground: house.House, machine: guests.Machine) -> None:
    blueprint = projects.Blueprint(
        probes=[
            projects.Probe(kind="rpc"),
            projects.Probe(kind="exec", command=["true"]),
            projects.Probe(kind="exec", command=["sh", "-c", "echo 1 >> tries; exit 4"]),
        ]
    )
    async with machine.booted() as boot, probing(ground, machine):
        await states.probing(ground.store, machine.id, boot, blueprint)
        await processes.until(lambda: tries(machine) >= 2)

        now = await states.get(ground.store, machine.id)
        (run,) = await probe_runs(ground, machine)

    assert now.phase is phases.Phase.PROBING
    assert run.error is not None
    assert run.error.message == "the probe ended with exit code 4"


async def test_a_machine_is_not_probed_before_it_has_the_environment_it_should_have(
    ground: house.House, machine: guests.Machine
) -> None:
    async with machine.booted() as boot:
        await states.probing(ground.store, machine.id, boot, exec_probe("echo 1 >> tries"))
        async with ground.store.write(actor="test") as tx:
            await env_vars.put(tx, env_vars.Scope.MACHINE, machine.id, {"KEY": "new"})
            await states.finish_guest_run(tx, machine.id)
            await stage_runs.queue(tx, await machines.get(tx, machine.id), phases.Stage.PROBE)
        async with probing(ground, machine):
            waiting = await ground.until(
                lambda tx: stage_runs.unfinished(tx, machine.id, phases.Lane.GUEST),
                lambda run: run.stage is phases.Stage.ENV,
            )

    assert waiting.claims == 0
    assert tries(machine) == 0
    assert (await probe_runs(ground, machine))[-1].outcome == "cancelled"


HELD = "touch asked; while [ ! -e go ]; do sleep 0.01; done"


@pytest.mark.parametrize("kind", databases.KINDS)
async def test_an_environment_changed_during_the_probe_puts_activation_off(
    ground: house.House, machine: guests.Machine
) -> None:
    async with machine.booted() as boot, probing(ground, machine):
        await states.probing(ground.store, machine.id, boot, exec_probe(HELD))
        await processes.until((machine.home / "asked").exists)
        async with ground.store.write(actor="test") as tx:
            await env_vars.put(tx, env_vars.Scope.MACHINE, machine.id, {"KEY": "new"})
        (machine.home / "go").touch()

        await ground.until(
            lambda tx: stage_runs.unfinished(tx, machine.id, phases.Lane.GUEST),
            lambda run: run.stage is phases.Stage.ENV,
        )
        now = await states.get(ground.store, machine.id)

    assert now.phase is phases.Phase.PROBING


async def test_a_machine_deleted_during_the_probe_stays_deleted(
    ground: house.House, machine: guests.Machine
) -> None:
    async with machine.booted() as boot, probing(ground, machine):
        await states.probing(ground.store, machine.id, boot, exec_probe(HELD))
        await processes.until((machine.home / "asked").exists)
        async with ground.store.write(actor="test") as tx:
            await machines.move(tx, machine.id, phases.DELETE)
        (machine.home / "go").touch()

        await ground.until(lambda _: probe_runs(ground, machine), lambda runs: runs[-1].outcome != "")
        now = await states.get(ground.store, machine.id)

    assert now.phase is phases.Phase.DELETING
    assert events.MACHINE_ACTIVATED not in await told(ground)


async def test_a_daemon_that_restarted_during_the_probe_puts_activation_off(
    ground: house.House, machine: guests.Machine
) -> None:
    async with machine.booted() as boot:
        await states.probing(ground.store, machine.id, boot)
        stage = stages.ProbeStage(ground.store, machine, actor="prober")
        async with ground.store.write() as tx:
            run = await stage_runs.claim(
                tx, machine.id, frozenset({phases.Stage.PROBE}), owner="prober", node="here"
            )
        assert run is not None
        outcome = await stage.work(await states.get(ground.store, machine.id), run)
        assert isinstance(outcome, runner.Finished)

        async with ground.store.write() as tx:
            await sandboxes.ready(tx, machine.id, 1, boot="b2", daemon_version="1")
            await outcome.apply(tx, await machines.get(tx, machine.id))
        now = await states.get(ground.store, machine.id)

    assert now.phase is phases.Phase.PROBING


@pytest.mark.parametrize("kind", databases.KINDS)
async def test_an_active_machine_that_fails_a_probe_is_degraded_until_it_succeeds(
    ground: house.House, machine: guests.Machine
) -> None:
    async with machine.booted() as boot, probing(ground, machine):
        await states.active(ground.store, machine.id, boot, exec_probe("[ -e works ]"))
        await probe_again(ground, machine)
        sick = await in_health(ground, machine, phases.Health.DEGRADED)
        (machine.home / "works").touch()
        well = await in_health(ground, machine, phases.Health.WELL)

    assert (sick.phase, sick.health_reason) == (phases.Phase.ACTIVE, "the probe ended with exit code 1")
    assert (well.phase, well.health_reason) == (phases.Phase.ACTIVE, "")


async def test_an_active_machine_whose_daemon_restarted_during_the_probe_is_set_up_again(
    ground: house.House, machine: guests.Machine
) -> None:
    async with machine.booted() as boot, probing(ground, machine):
        await states.active(ground.store, machine.id, boot, exec_probe(HELD))
        await probe_again(ground, machine)
        await processes.until((machine.home / "asked").exists)
        async with ground.store.write(actor="test") as tx:
            await sandboxes.ready(tx, machine.id, 1, boot="b2", daemon_version="1")
        (machine.home / "go").touch()

        queued = await ground.until(
            lambda tx: stage_runs.unfinished(tx, machine.id, phases.Lane.GUEST),
            lambda run: run is not None and run.stage is phases.Stage.SETUP,
        )

    assert queued.boot == "b2"


async def test_probes_that_take_too_long_together_fail_with_our_reason(
    ground: house.House, machine: guests.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "ROUND_S", 0.2)
    async with machine.booted() as boot, probing(ground, machine):
        await states.active(ground.store, machine.id, boot, exec_probe("sleep 3"))
        await probe_again(ground, machine)

        sick = await in_health(ground, machine, phases.Health.DEGRADED)

    assert sick.health_reason == "the probes took longer than 0.2 s together"


def test_the_pauses_grow_from_100_ms_to_5_s_and_stay_there() -> None:
    pauses = [round(stages.pause_s(failures), 3) for failures in range(11)]

    assert pauses == [0.1, 0.16, 0.256, 0.41, 0.655, 1.049, 1.678, 2.684, 4.295, 5.0, 5.0]
    assert stages.pause_s(10**9) == 5.0
