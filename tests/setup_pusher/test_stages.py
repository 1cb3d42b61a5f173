"""The stages in their process: real store, real bus, a real daemon."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from paddock.bus import clock
from paddock.contracts import ids, phases
from paddock.setup_pusher import environment, guest, manager, plan, settings, stages
from paddock.store import engine, env_vars, machines, outbox, projects, runner, sandboxes, stage_runs
from tests.setup_pusher import machine as guests
from tests.setup_pusher import remotes, states
from tests.support import databases, house, processes

NO_NETWORK = environment.Network()


@contextlib.asynccontextmanager
async def guest_of(ground: house.House) -> AsyncIterator[guests.Machine]:
    folder = ground.folder / "guest"
    folder.mkdir()
    async with guests.on_the_bus(ground.bus, folder) as made:
        yield made


@contextlib.asynccontextmanager
async def pushing(
    ground: house.House,
    machine: guest.Calls,
    owner: str = "pusher",
    *,
    network: environment.Network = NO_NETWORK,
    lease_ms: int = stage_runs.LEASE_MS,
    dies: bool = False,
) -> AsyncIterator[None]:
    """Both stages, with a sweep that does not wait for events. One that `dies` leaves its leases to run out."""
    made, asks = (
        plan.Planner(ground.store, network),
        stages.Guests(machine, clock.SystemClock(), patience_s=0.2),
    )
    handlers: dict[phases.Stage, runner.Handler] = {
        phases.Stage.SETUP: stages.SetupStage(ground.store, made, asks, actor=owner),
        phases.Stage.ENV: stages.EnvStage(ground.store, made, asks),
    }
    works = runner.Runner(
        ground.store, owner=owner, node="here", stages=handlers, lease_ms=lease_ms, sweep_s=0.03
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(works.run(stop))
        try:
            yield
        finally:
            if dies:
                task.cancel()
            stop.set()


def steps(*scripts: str) -> projects.Blueprint:
    return projects.Blueprint(
        setup_steps=[projects.SetupStep(name=script, command=["sh", "-c", script]) for script in scripts]
    )


async def arrived(
    ground: house.House, machine: ids.MachineId, phase: phases.Phase, *, is_env_applied: bool = True
) -> machines.Machine:
    found: machines.Machine = await ground.until(
        lambda tx: machines.get(tx, machine),
        lambda now: now.phase is phase and now.is_env_applied == is_env_applied,
    )
    return found


async def history(ground: house.House, machine: ids.MachineId) -> list[tuple[str, str]]:
    async with ground.store.read() as tx:
        return [(run.stage, run.outcome) for run in await stage_runs.history(tx, machine)]


async def set_env(ground: house.House, machine: ids.MachineId, **variables: str) -> None:
    async with ground.store.write(actor="test") as tx:
        await env_vars.put(tx, env_vars.Scope.MACHINE, machine, variables)


@pytest.mark.parametrize("kind", databases.KINDS)
async def test_a_machine_is_set_up_and_goes_on_to_probing(ground: house.House) -> None:
    origin = remotes.bare(ground.folder)
    async with (
        guest_of(ground) as machine,
        machine.booted() as boot,
        pushing(ground, machine, network=environment.Network(ca_file="/ca.pem")),
    ):
        async with ground.store.write(actor="test") as tx:
            await env_vars.put(tx, env_vars.Scope.PLATFORM, "", {"WHERE": "platform", "BASE": "b"})
        clone = {"url": f"file://{origin}", "path": "~/app", "branch": "side"}
        script = 'echo "$WHERE $BASE $PADDOCK_MACHINE_ID $SSL_CERT_FILE" > seen; cat app/README >> seen'
        await states.setting_up(ground.store, machine.id, boot, steps(script), repositories=(clone,))

        await arrived(ground, machine.id, phases.Phase.PROBING)

    assert (machine.home / "seen").read_text() == f"platform b {machine.id} /ca.pem\norigin side\n"
    runs = await history(ground, machine.id)
    assert runs[-2:] == [("setup", "done"), ("probe", "")]


async def test_an_event_wakes_the_service(ground: house.House) -> None:
    given = ground.settings_for(settings.Settings, setup_pusher_no_proxy="localhost")
    async with guest_of(ground) as machine, machine.booted() as boot, ground.serving(given, manager.serve):
        await states.setting_up(ground.store, machine.id, boot)
        async with ground.store.read() as tx:
            rows = await outbox.unsent(tx, limit=100)
        stream = (await ground.bus.service("registrar")).jetstream()
        for row in rows:
            await stream.publish(row.subject, row.body)

        await arrived(ground, machine.id, phases.Phase.PROBING)

    assert "no_proxy=localhost" in (machine.home / ".paddock/.env").read_text()


async def test_a_daemon_that_is_not_there_yet_is_no_failure(ground: house.House) -> None:
    async with guest_of(ground) as machine, pushing(ground, machine):
        await states.setting_up(ground.store, machine.id, "b1", steps("echo 1 >> log"))
        await ground.until(
            lambda tx: stage_runs.unfinished(tx, machine.id, phases.Lane.GUEST), lambda run: run.claims > 0
        )
        async with machine.booted():
            await arrived(ground, machine.id, phases.Phase.PROBING)

    async with ground.store.read() as tx:
        setup = [run for run in await stage_runs.history(tx, machine.id) if run.stage is phases.Stage.SETUP]
    assert [(run.run, run.attempt, run.outcome) for run in setup] == [(1, 0, "done")]


async def test_a_step_that_keeps_failing_fails_the_machine_with_its_words(
    ground: house.House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "BACKOFF_S", (0.01,))
    async with guest_of(ground) as machine, machine.booted() as boot:
        script = 'echo 1 >> log; echo "bad $TOKEN" >&2; exit 9'
        await states.setting_up(ground.store, machine.id, boot, steps(script))
        await set_env(ground, machine.id, TOKEN="sesame-open-77")

        async with pushing(ground, machine):
            failed = await arrived(ground, machine.id, phases.Phase.FAILED, is_env_applied=False)
        async with ground.store.read() as tx:
            sandbox = await sandboxes.get(tx, machine.id, 1)

    assert failed.reason is not None
    assert (failed.reason.stage, failed.reason.kind) == ("setup", "setup_failed")
    assert (failed.reason.data["exitCode"], failed.reason.log_tail) == (9, "bad ***")
    assert (machine.home / "log").read_text() == "1\n" * phases.MAX_ATTEMPTS[phases.Stage.SETUP]
    assert sandbox is not None
    assert sandbox.destroy_after is not None


async def test_a_path_in_use_fails_the_machine_at_once(ground: house.House) -> None:
    async with guest_of(ground) as machine, machine.booted() as boot, pushing(ground, machine):
        (machine.home / "app").mkdir()
        clone = {"url": f"file://{remotes.bare(ground.folder)}", "path": "app"}
        await states.setting_up(ground.store, machine.id, boot, repositories=(clone,))

        failed = await arrived(ground, machine.id, phases.Phase.FAILED, is_env_applied=False)

    assert failed.reason is not None
    assert failed.reason.kind == "path_in_use"


@pytest.mark.parametrize("kind", databases.KINDS)
async def test_an_environment_changed_during_setup_is_applied_before_the_probe(ground: house.House) -> None:
    script = "touch began; while [ ! -e go ]; do sleep 0.01; done"
    async with guest_of(ground) as machine, machine.booted() as boot, pushing(ground, machine):
        await states.setting_up(ground.store, machine.id, boot, steps(script))
        await processes.until((machine.home / "began").exists)
        await set_env(ground, machine.id, KEY="late")
        (machine.home / "go").touch()

        now = await arrived(ground, machine.id, phases.Phase.PROBING)
        guest_runs = (await history(ground, machine.id))[-3:]

    assert (now.env_desired, now.env_applied) == (2, 2)
    assert "KEY=late" in (machine.home / ".paddock/.env").read_text()
    assert guest_runs == [("setup", "done"), ("env", "done"), ("probe", "")]


async def test_an_active_machine_gets_a_changed_environment_and_is_probed(ground: house.House) -> None:
    async with guest_of(ground) as machine, machine.booted() as boot, pushing(ground, machine):
        await states.active(ground.store, machine.id, boot)
        await set_env(ground, machine.id, KEY="one")
        await set_env(ground, machine.id, KEY="two")

        now = await arrived(ground, machine.id, phases.Phase.ACTIVE)
        last = await ground.until(
            lambda _: history(ground, machine.id), lambda runs: runs[-1] == ("probe", "")
        )

    assert now.env_applied == 3
    assert "KEY=two" in (machine.home / ".paddock/.env").read_text()
    assert ("env", "done") in last


async def test_an_environment_that_cannot_be_written_degrades_an_active_machine(ground: house.House) -> None:
    async with guest_of(ground) as machine, machine.booted() as boot, pushing(ground, machine):
        await states.active(ground.store, machine.id, boot)
        (machine.home / ".paddock/.env").mkdir()
        await set_env(ground, machine.id, KEY="one")

        now = await ground.until(
            lambda tx: machines.get(tx, machine.id), lambda row: row.health is phases.Health.DEGRADED
        )

    assert now.phase is phases.Phase.ACTIVE
    assert now.health_reason.startswith("env: ")


async def test_a_restarted_daemon_of_an_active_machine_is_checked_and_probed(ground: house.House) -> None:
    async with guest_of(ground) as machine, machine.booted() as boot, pushing(ground, machine):
        await states.active(ground.store, machine.id, boot, steps("echo 1 >> log"))
        await states.queue(ground.store, machine.id, phases.Stage.SETUP, boot=boot)

        runs = await ground.until(
            lambda _: history(ground, machine.id), lambda runs: runs[-1] == ("probe", "")
        )

    assert runs[-2] == ("setup", "done")
    assert (machine.home / "log").read_text() == "1\n"


async def test_a_daemon_that_restarted_while_the_lane_was_busy_is_set_up_afterwards(
    ground: house.House,
) -> None:
    async with guest_of(ground) as machine, machine.booted() as boot:
        await states.active(ground.store, machine.id, boot)
        await set_env(ground, machine.id, KEY="one")
        env = stages.EnvStage(
            ground.store, planner(ground.store), stages.Guests(machine, clock.SystemClock())
        )
        row = await states.get(ground.store, machine.id)
        async with ground.store.write() as tx:
            run = await stage_runs.claim(
                tx, machine.id, frozenset({phases.Stage.ENV}), owner="me", node="here"
            )
        assert run is not None
        outcome = await env.work(row, run)
        assert isinstance(outcome, runner.Finished)

        async with ground.store.write() as tx:
            await sandboxes.ready(tx, machine.id, 1, boot="b2", daemon_version="1")
            await stage_runs.finish(tx, run, "done")
            await outcome.apply(tx, await machines.get(tx, machine.id))
            queued = await stage_runs.unfinished(tx, machine.id, phases.Lane.GUEST)

    assert queued is not None
    assert (queued.stage, queued.boot) == (phases.Stage.SETUP, "b2")


async def test_a_run_of_a_phase_that_is_over_is_cancelled(ground: house.House) -> None:
    async with guest_of(ground) as machine:
        row = await states.active(ground.store, machine.id, "b1")
        setup = stages.SetupStage(
            ground.store, planner(ground.store), stages.Guests(machine, clock.SystemClock()), actor="pusher"
        )
        env = stages.EnvStage(
            ground.store, planner(ground.store), stages.Guests(machine, clock.SystemClock())
        )
        async with ground.store.write() as tx:
            run = await stage_runs.queue(tx, row, phases.Stage.SETUP)
            assert run is not None
            moved = await machines.move(tx, machine.id, phases.DELETE)
            assert moved is not None

            claims = [await setup.claimed(tx, moved, run), await env.claimed(tx, moved, run)]

    assert claims == [None, None]


@pytest.mark.parametrize("kind", databases.KINDS)
async def test_a_line_is_appended_once_although_pushers_die_and_two_compete(ground: house.House) -> None:
    """The first is cut off in mid-step and its lease runs out; two others then want its work at the same time."""
    script = "echo 1 >> log; while [ ! -e go ]; do sleep 0.01; done"
    async with guest_of(ground) as machine, machine.booted() as boot:
        async with pushing(ground, machine, "first", lease_ms=600, dies=True):
            await states.setting_up(ground.store, machine.id, boot, steps(script, "echo 2 >> log"))
            await processes.until((machine.home / "log").exists)
        async with (
            pushing(ground, machine, "second", lease_ms=600),
            pushing(ground, machine, "third", lease_ms=600),
        ):
            await ground.until(
                lambda tx: stage_runs.unfinished(tx, machine.id, phases.Lane.GUEST),
                lambda run: run.claims == 2,
            )
            (machine.home / "go").touch()
            await arrived(ground, machine.id, phases.Phase.PROBING)

    async with ground.store.read() as tx:
        setup = [run for run in await stage_runs.history(tx, machine.id) if run.stage is phases.Stage.SETUP]
    assert (machine.home / "log").read_text() == "1\n2\n"
    assert [(run.run, run.attempt, run.claims) for run in setup] == [(1, 0, 2)]


async def test_no_event_and_no_row_holds_a_secret(ground: house.House) -> None:
    async with guest_of(ground) as machine, machine.booted() as boot, pushing(ground, machine):
        await states.setting_up(ground.store, machine.id, boot, steps("echo $KEY"))
        await set_env(ground, machine.id, KEY="sesame-open-77")
        await arrived(ground, machine.id, phases.Phase.PROBING)
        async with ground.store.read() as tx:
            bodies = [bytes(row.body) for row in await outbox.unsent(tx, limit=100)]

    database = b"".join(path.read_bytes() for path in ground.folder.glob("paddock.db*"))
    assert any(b"machine.setup-pushed" in body for body in bodies)
    assert b"sesame" not in b"".join(bodies) + database


def planner(store: engine.Store) -> plan.Planner:
    return plan.Planner(store, environment.Network())
