"""The stage runner: exactly one owner at a time, nothing lost to a crash, nothing finished by a loser."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from paddock.contracts import errors, phases
from paddock.store import engine, env_vars, machines, projects, runner, stage_runs

Work = Callable[[machines.Machine, stage_runs.Run], Awaitable[runner.Outcome]]
LEASE_MS = 600


class Scripted:
    """A handler whose work is a function; moves the machine along when it is done."""

    def __init__(self, work: Work, done: phases.Move | None = None) -> None:
        self._work, self._done = work, done
        self.worked: list[stage_runs.Run] = []
        self.gave_up_on: list[errors.Fault] = []

    async def claimed(
        self, tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run
    ) -> machines.Machine | None:
        return machine if machine.generation == run.generation else None

    async def work(self, machine: machines.Machine, run: stage_runs.Run) -> runner.Outcome:
        self.worked.append(run)
        return await self._work(machine, run)

    async def gave_up(
        self, tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run, fault: errors.Fault
    ) -> None:
        self.gave_up_on.append(fault)
        await machines.move(tx, machine.id, phases.FAIL, reason=machines.reason_of(run.stage, fault))

    async def done(self, tx: engine.Tx, machine: machines.Machine) -> None:
        if self._done is not None:
            await machines.move(tx, machine.id, self._done)


def finishing(move: phases.Move | None = None) -> Scripted:
    async def work(_machine: machines.Machine, _run: stage_runs.Run) -> runner.Outcome:
        return runner.Finished(handler.done)

    handler = Scripted(work, move)
    return handler


@contextlib.asynccontextmanager
async def running(
    store: engine.Store, handler: Scripted, *, stage: phases.Stage = phases.Stage.SETUP, owner: str = "one"
) -> AsyncIterator[runner.Runner]:
    worker = runner.Runner(
        store, owner=owner, node="here", stages={stage: handler}, lease_ms=LEASE_MS, sweep_s=0.05
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        try:
            yield worker
        finally:
            stop.set()


async def until(
    store: engine.Store, machine: machines.Machine, is_so: Callable[[machines.Machine], bool]
) -> machines.Machine:
    """The machine, once it is so; the store has no event to wait for, so this looks."""
    async with asyncio.timeout(10):
        while True:
            async with store.read() as tx:
                now = await machines.get(tx, machine.id)
            if is_so(now):
                return now
            await asyncio.sleep(0.01)


@pytest.fixture
async def machine(store: engine.Store, project: projects.Project) -> machines.Machine:
    """One that is setting up."""
    async with store.write(actor="test") as tx:
        made = await machines.create(tx, project=project.id, provider="process")
        await machines.set_env_applied(tx, made.id, 1)
        await machines.move(tx, made.id, phases.CLAIM)
        moved = await machines.move(tx, made.id, phases.SET_UP, boot="b1")
    assert moved is not None
    return moved


async def test_work_that_ends_well_moves_the_machine_and_queues_the_next_stage(
    store: engine.Store, machine: machines.Machine
) -> None:
    handler = finishing(phases.PROBE)

    async with running(store, handler):
        await until(store, machine, lambda m: m.phase is phases.Phase.PROBING)

    async with store.read() as tx:
        runs = await stage_runs.history(tx, machine.id)
    assert [(run.stage, run.outcome) for run in runs][-2:] == [("setup", "done"), ("probe", "")]
    assert runs[-2].owner == "one"


async def test_a_crash_is_taken_over_by_another_and_is_no_attempt(
    store: engine.Store, other: engine.Store, machine: machines.Machine
) -> None:
    async with store.write() as tx:
        dead = await stage_runs.claim(
            tx, machine.id, frozenset({phases.Stage.SETUP}), owner="dead", node="here", lease_ms=300
        )
    assert dead is not None
    handler = finishing(phases.PROBE)

    async with running(other, handler, owner="heir"):
        await until(store, machine, lambda m: m.phase is phases.Phase.PROBING)

    taken = handler.worked[0]
    assert (taken.id, taken.run, taken.attempt, taken.claims) == (dead.id, dead.run, 0, dead.claims + 1)


async def test_two_pushers_share_the_work_and_one_machine_is_worked_on_once(
    store: engine.Store, other: engine.Store, machine: machines.Machine
) -> None:
    first, second = finishing(phases.PROBE), finishing(phases.PROBE)

    async with running(store, first, owner="a"), running(other, second, owner="b"):
        await until(store, machine, lambda m: m.phase is phases.Phase.PROBING)

    assert len(first.worked) + len(second.worked) == 1


async def test_a_lease_that_expired_finishes_nothing(
    store: engine.Store, other: engine.Store, machine: machines.Machine
) -> None:
    async with store.write() as tx:
        late = await stage_runs.claim(
            tx, machine.id, frozenset({phases.Stage.SETUP}), owner="late", node="here", lease_ms=-1000
        )
        heir = await stage_runs.claim(
            tx, machine.id, frozenset({phases.Stage.SETUP}), owner="heir", node="here"
        )
    assert late is not None
    assert heir is not None

    async with other.write() as tx:
        assert not await stage_runs.still_held(tx, late)
        assert not await stage_runs.renew(tx, late)
        assert await stage_runs.still_held(tx, heir)


async def test_deleting_cancels_the_work_under_way_at_once(
    store: engine.Store, machine: machines.Machine
) -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def clone(_machine: machines.Machine, _run: stage_runs.Run) -> runner.Outcome:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with running(store, Scripted(clone)) as worker:
        async with asyncio.timeout(5):
            await began.wait()
            async with store.write(actor="gateway") as tx:
                await machines.move(tx, machine.id, phases.DELETE)
            worker.wake(machine.id)
            await cancelled.wait()

    async with store.read() as tx:
        left = await stage_runs.unfinished(tx, machine.id, phases.Lane.PROVIDER)
        runs = await stage_runs.history(tx, machine.id)
    assert left is not None
    assert left.stage is phases.Stage.DESTROY
    assert [run.outcome for run in runs if run.stage is phases.Stage.SETUP] == ["cancelled"]


async def test_a_known_failure_is_tried_again_with_new_call_ids_and_then_fails_the_machine(
    store: engine.Store, machine: machines.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "BACKOFF_S", (0.01,))

    async def fail(_machine: machines.Machine, _run: stage_runs.Run) -> runner.Outcome:
        raise errors.RepositoryFailed("cannot clone: no such branch")

    handler = Scripted(fail)
    async with running(store, handler):
        failed = await until(store, machine, lambda m: m.phase is phases.Phase.FAILED)

    assert [(run.attempt, run.run) for run in handler.worked] == [(0, 1), (1, 2), (2, 3)]
    assert failed.reason is not None
    assert (failed.reason.stage, failed.reason.message) == ("setup", "cannot clone: no such branch")


async def test_a_bug_in_one_machines_work_is_logged_and_counts_as_a_failure_of_it_alone(
    store: engine.Store, machine: machines.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "BACKOFF_S", (0.01,))

    async def crash(_machine: machines.Machine, _run: stage_runs.Run) -> runner.Outcome:
        raise ZeroDivisionError

    async with running(store, Scripted(crash)):
        failed = await until(store, machine, lambda m: m.phase is phases.Phase.FAILED)

    assert failed.reason is not None
    assert failed.reason.kind == "internal"


async def test_an_attempt_past_its_limit_is_cancelled_and_counts(
    store: engine.Store, machine: machines.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(phases.ATTEMPT_LIMIT_S, phases.Stage.SETUP, 0.05)
    monkeypatch.setattr(runner, "BACKOFF_S", (0.01,))

    async def hang(_machine: machines.Machine, _run: stage_runs.Run) -> runner.Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    async with running(store, Scripted(hang)):
        failed = await until(store, machine, lambda m: m.phase is phases.Phase.FAILED)

    assert failed.reason is not None
    assert failed.reason.kind == "limit_exceeded"


async def test_waiting_is_no_attempt(store: engine.Store, machine: machines.Machine) -> None:
    async def wait_thrice(_machine: machines.Machine, _run: stage_runs.Run) -> runner.Outcome:
        return runner.Again(0.0) if len(handler.worked) < 4 else runner.Finished(handler.done)

    handler = Scripted(wait_thrice, phases.PROBE)
    async with running(store, handler):
        await until(store, machine, lambda m: m.phase is phases.Phase.PROBING)

    assert [(run.attempt, run.run) for run in handler.worked] == [(0, 1)] * 4


@pytest.mark.parametrize("away", [errors.BusDown(), errors.StoreDown()], ids=lambda fault: fault.kind)
async def test_what_is_away_is_no_attempt_and_is_shown(
    store: engine.Store, machine: machines.Machine, away: errors.Fault
) -> None:
    """Four seconds without a registrar used up all three attempts of every machine that was provisioned then."""

    async def wait(_machine: machines.Machine, _run: stage_runs.Run) -> runner.Outcome:
        if len(handler.worked) > 4:
            return runner.Finished(handler.done)
        if isinstance(away, errors.StoreDown):
            raise away
        return runner.Again(0.0, away, is_failure=False)

    handler = Scripted(wait, phases.PROBE)
    async with running(store, handler):
        await until(store, machine, lambda m: m.phase is phases.Phase.PROBING)

    assert [(run.attempt, run.run) for run in handler.worked] == [(0, 1)] * 5
    last = handler.worked[-1].error
    assert last is not None
    assert last.kind == away.kind


async def test_waiting_work_of_an_active_machine_gives_way_only_to_what_covers_it(
    store: engine.Store, machine: machines.Machine
) -> None:
    """A changed variable, or a look at a machine that fell silent, displaced the setup after a daemon's restart."""
    async with store.write(actor="test") as tx:
        await machines.move(tx, machine.id, phases.PROBE)
        active = await machines.move(tx, machine.id, phases.ACTIVATE)
        assert active is not None
        queued = [
            await stage_runs.queue(tx, active, stage, boot="b2")
            for stage in (phases.Stage.PROBE, phases.Stage.ENV, phases.Stage.PROBE, phases.Stage.SETUP)
        ]
        refused = [
            await stage_runs.queue(tx, active, stage) for stage in (phases.Stage.ENV, phases.Stage.PROBE)
        ]
        left = await stage_runs.unfinished(tx, machine.id, phases.Lane.GUEST)

    assert [one is not None and one.stage for one in queued] == ["probe", "env", False, "setup"]
    assert refused == [None, None]
    assert left == queued[-1]


async def test_a_stopping_process_gives_its_work_back_at_once(
    store: engine.Store, machine: machines.Machine
) -> None:
    began = asyncio.Event()

    async def slow(_machine: machines.Machine, _run: stage_runs.Run) -> runner.Outcome:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with running(store, Scripted(slow)):
        async with asyncio.timeout(5):
            await began.wait()

    async with store.read() as tx:
        run = await stage_runs.unfinished(tx, machine.id, phases.Lane.GUEST)
    assert run is not None
    assert (run.lease_until, run.attempt) == (0, 0)


async def test_a_new_boot_while_setting_up_starts_setup_over(
    store: engine.Store, machine: machines.Machine
) -> None:
    async with store.write() as tx:
        await machines.move(tx, machine.id, phases.SET_UP_AGAIN, boot="b2")

    async with store.read() as tx:
        runs = [run for run in await stage_runs.history(tx, machine.id) if run.stage is phases.Stage.SETUP]
    assert [(run.boot, run.outcome, run.run) for run in runs] == [("b1", "superseded", 1), ("b2", "", 1)]


async def test_an_environment_changed_while_setting_up_is_applied_before_the_probe(
    store: engine.Store, machine: machines.Machine
) -> None:
    async with store.write(actor="gateway") as tx:
        await env_vars.put(tx, env_vars.Scope.PROJECT, machine.project_id, {"COLOUR": "blue"})

    async with running(store, finishing(phases.PROBE)):
        await until(store, machine, lambda m: m.phase is phases.Phase.PROBING)

    async with store.read() as tx:
        left = await stage_runs.unfinished(tx, machine.id, phases.Lane.GUEST)
    assert left is not None
    assert left.stage is phases.Stage.ENV


async def test_deleting_while_the_provider_works_waits_for_it_and_then_destroys(
    store: engine.Store, project: projects.Project
) -> None:
    async with store.write() as tx:
        made = await machines.create(tx, project=project.id, provider="process")
    began, let_go = asyncio.Event(), asyncio.Event()

    async def create(_machine: machines.Machine, _run: stage_runs.Run) -> runner.Outcome:
        began.set()
        await let_go.wait()
        return runner.Finished(handler.done)

    handler = Scripted(create)
    async with running(store, handler, stage=phases.Stage.PROVISION):
        async with asyncio.timeout(5):
            await began.wait()
        async with store.write(actor="gateway") as tx:
            await machines.move(tx, made.id, phases.DELETE)
            during = await stage_runs.unfinished(tx, made.id, phases.Lane.PROVIDER)
        let_go.set()

        async def destroy_waits() -> stage_runs.Run:
            while True:
                async with store.read() as tx:
                    run = await stage_runs.unfinished(tx, made.id, phases.Lane.PROVIDER)
                if run is not None and run.stage is phases.Stage.DESTROY:
                    return run
                await asyncio.sleep(0.01)

        async with asyncio.timeout(5):
            after = await destroy_waits()

    assert during is not None
    assert during.stage is phases.Stage.PROVISION
    assert after.claims == 0


async def test_a_run_pinned_to_another_host_is_passed_over(
    store: engine.Store, machine: machines.Machine
) -> None:
    names = frozenset({phases.Stage.SETUP})
    async with store.write() as tx:
        run = await stage_runs.claim(tx, machine.id, names, owner="x", node="there")
        assert run is not None
        await stage_runs.pin(tx, run, "there")
        await stage_runs.try_again(tx, run, after_ms=0, error=None, is_failure=False)

    async with store.write() as tx:
        here = await stage_runs.claim(tx, machine.id, names, owner="y", node="here")
        there = await stage_runs.claim(tx, machine.id, names, owner="z", node="there")

    assert here is None
    assert there is not None
