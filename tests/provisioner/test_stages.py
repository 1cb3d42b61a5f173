"""The provider lane's races, on both databases, with real sandboxes."""

import asyncio
import pathlib
from collections.abc import AsyncIterator, Iterator

import pytest

from paddock.contracts import phases
from paddock.provisioner.providers import runtime
from paddock.store import engine, machines, sandboxes, stage_runs
from tests.provisioner import ground, inside, lane
from tests.support import databases

PHASE = phases.Phase


@pytest.fixture(params=databases.KINDS)
def url(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[str]:
    with databases.database(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def store(url: str) -> AsyncIterator[engine.Store]:
    async with engine.open_store(url, databases.box()) as opened:
        yield opened


@pytest.fixture
async def source(tmp_path: pathlib.Path, daemon: runtime.Runtime) -> AsyncIterator[lane.Gated]:
    async with inside.emptied(lane.Gated(tmp_path / "data", daemon)) as made:
        yield made


async def ready(store: engine.Store, machine: machines.Machine, boot: str = "b1") -> None:
    """What the registrar does when a daemon says ready."""
    async with store.write(actor="registrar") as tx:
        now = await machines.lock(tx, machine.id)
        assert now is not None
        before = await sandboxes.get(tx, machine.id, now.generation)
        assert before is not None
        await sandboxes.ready(tx, machine.id, now.generation, boot=boot, daemon_version="1")
        if before.external_id is not None:
            await machines.move(tx, machine.id, phases.SET_UP, boot=boot)


async def move(
    store: engine.Store, machine: machines.Machine, way: phases.Move, *, next_generation: bool = False
) -> None:
    async with store.write(actor="test") as tx:
        assert await machines.move(tx, machine.id, way, next_generation=next_generation) is not None


async def history(store: engine.Store, machine: machines.Machine) -> list[str]:
    async with store.read() as tx:
        return [step.phase.value for step in await machines.history(tx, machine.id)]


async def test_ready_before_the_external_id_goes_straight_to_setup(
    store: engine.Store, source: lane.Gated
) -> None:
    works = lane.Lane(store, source)
    source.gate.clear()
    async with works.running():
        machine = await ground.make(store)
        await source.reached.wait()
        await ready(store, machine)
        source.gate.set()
        await works.reaches(machine, PHASE.SETTING_UP)

    assert await history(store, machine) == ["created", "provisioning", "setting_up"]


async def test_ready_and_external_id_at_the_same_moment_lose_neither(
    store: engine.Store, source: lane.Gated
) -> None:
    works = lane.Lane(store, source)
    async with works.running():
        for _ in range(5):
            source.reached.clear()
            source.gate.clear()
            machine = await ground.make(store)
            await source.reached.wait()
            async with asyncio.TaskGroup() as group:
                group.create_task(ready(store, machine))
                source.gate.set()
            await works.reaches(machine, PHASE.SETTING_UP)
            async with store.read() as tx:
                run = await stage_runs.unfinished(tx, machine.id, phases.Lane.GUEST)
            assert run is not None
            assert (run.stage, run.boot) == (phases.Stage.SETUP, "b1")


async def test_the_row_is_there_before_the_provider_is_called(
    store: engine.Store, source: lane.Gated
) -> None:
    works = lane.Lane(store, source)
    source.gate.clear()
    async with works.running():
        machine = await ground.make(store)
        await source.reached.wait()
        async with store.read() as tx:
            row = await sandboxes.get(tx, machine.id, 1)

    assert row is not None
    assert row.node is not None
    assert row.external_id is None


async def test_a_takeover_finds_the_sandbox_the_first_one_made(
    store: engine.Store, source: lane.Gated
) -> None:
    """The provisioner is gone between the provider's deed and its own commit."""
    first = lane.Lane(store, source)
    source.gate.clear()
    machine = await ground.make(store)
    with pytest.raises(ExceptionGroup):
        await _die_during_create(first, source)
    source.gate.set()
    [found] = await source.sandboxes()
    second = lane.Lane(store, source)
    async with second.running():
        await second.reaches(machine, PHASE.BOOTING)

    async with store.read() as tx:
        [row] = await sandboxes.of_machine(tx, machine.id)
        [run, *_] = await stage_runs.history(tx, machine.id)
    assert row.external_id == found.external_id
    assert source.calls == [f"create {machine.sandbox_id}"] * 2
    assert (run.attempt, run.outcome) == (0, "done")
    assert second.watched == [machine.sandbox_id]


async def test_delete_while_the_provider_works_waits_and_then_leaves_nothing(
    store: engine.Store, source: lane.Gated
) -> None:
    works = lane.Lane(store, source)
    source.gate.clear()
    async with works.running():
        machine = await ground.make(store)
        await source.reached.wait()
        await move(store, machine, phases.DELETE)
        source.gate.set()
        await works.reaches(machine, PHASE.DELETED)

    assert source.calls == [f"create {machine.sandbox_id}", f"delete {machine.sandbox_id}"]
    assert await source.sandboxes() == []
    assert not source.records.home(machine.id).exists()


async def test_retry_while_the_old_sandbox_runs_ends_that_first(
    store: engine.Store, source: lane.Gated
) -> None:
    works = lane.Lane(store, source)
    async with works.running():
        machine = await works.reaches(await ground.make(store), PHASE.BOOTING)
        await move(store, machine, phases.FAIL)
        await move(store, machine, phases.RETRY, next_generation=True)
        machine = await works.reaches(machine, PHASE.BOOTING, 2)

    assert source.calls == [f"create {machine.id}-1", f"delete {machine.id}-1", f"create {machine.id}-2"]
    assert [found.sandbox_id for found in await source.sandboxes()] == [machine.sandbox_id]


async def test_after_its_last_attempt_a_machine_fails_with_the_providers_reason(
    store: engine.Store, source: lane.Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.store.runner.BACKOFF_S", (0.01,))
    source.failures = 3
    works = lane.Lane(store, source)
    async with works.running():
        machine = await works.reaches(await ground.make(store), PHASE.FAILED)

    async with store.read() as tx:
        [row] = await sandboxes.of_machine(tx, machine.id)
    assert machine.reason is not None
    assert (machine.reason.stage, machine.reason.kind) == ("provision", "provider_failed")
    assert machine.reason.message == "cannot start it: the moon is full"
    assert row.destroy_after is not None


async def test_a_machine_stays_with_the_host_that_has_its_home(
    store: engine.Store, source: lane.Gated, tmp_path: pathlib.Path, daemon: runtime.Runtime
) -> None:
    async with inside.emptied(lane.Gated(tmp_path / "there", daemon)) as elsewhere:
        here, there = lane.Lane(store, source), lane.Lane(store, elsewhere, node="there")
        async with here.running():
            machine = await here.reaches(await ground.make(store), PHASE.BOOTING)
        async with there.running():
            await move(store, machine, phases.RECREATE, next_generation=True)
            await lane.until(lambda: _is_pinned(store, machine, "here"))
            async with here.running():
                machine = await here.reaches(machine, PHASE.BOOTING, 2)
            await move(store, machine, phases.DELETE)
            async with here.running():
                await here.reaches(machine, PHASE.DELETED)

        assert elsewhere.calls == []
        assert await source.sandboxes() == []


async def _die_during_create(works: lane.Lane, source: lane.Gated) -> None:
    async with works.running():
        await source.reached.wait()
        raise ConnectionAbortedError  # cancels it where it stands


async def _is_pinned(store: engine.Store, machine: machines.Machine, node: str) -> bool:
    async with store.read() as tx:
        run = await stage_runs.unfinished(tx, machine.id, phases.Lane.PROVIDER)
    return run is not None and run.node == node


async def test_a_provider_that_cannot_run_here_fails_the_machine_and_says_so(
    store: engine.Store, source: lane.Gated
) -> None:
    source._why_not = "there is no bwrap"
    works = lane.Lane(store, source)
    async with works.running():
        machine = await works.reaches(await ground.make(store), PHASE.FAILED)

    assert machine.reason is not None
    assert machine.reason.message == "cannot make a sandbox: there is no bwrap"
