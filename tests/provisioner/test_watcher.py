"""What is gone is made anew, what nobody knows is removed, and nothing else is touched."""

import pathlib
import types
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from paddock.bus import clock
from paddock.contracts import errors, ids, phases
from paddock.provisioner import catalogue, watcher
from paddock.provisioner.providers import runtime
from paddock.store import engine, machines, sandboxes, stage_runs
from tests.provisioner import ground, inside, lane
from tests.support import databases

PHASE = phases.Phase
ORPHAN_S = 360.0


class Post:
    """A watcher over a real provider whose sandboxes a test makes by hand."""

    def __init__(self, store: engine.Store, wall: clock.ManualClock, source: lane.Gated) -> None:
        self.store, self.wall, self.source = store, wall, source
        self.woken: list[ids.MachineId] = []
        context: Any = types.SimpleNamespace(store=store, owner="watcher", node="here", clock=wall)
        providers = catalogue.Catalogue([source], offered=frozenset({source.name}))
        self.keeper = watcher.Watcher(context, providers, orphan_s=ORPHAN_S, wake=self.woken.append)

    async def booting(self) -> machines.Machine:
        machine = await ground.make(self.store)
        made = await self.source.create(inside.spec(machine.id))
        async with self.store.write(actor="test") as tx:
            await sandboxes.begin(tx, machine.id, 1, node="here")
            await sandboxes.made(tx, machine.id, 1, made.external_id)
            await machines.move(tx, machine.id, phases.CLAIM)
            await machines.move(tx, machine.id, phases.BOOT)
            run = await stage_runs.unfinished(tx, machine.id, phases.Lane.PROVIDER)
            assert run is not None
            await stage_runs.finish(tx, run, "done")
        return machine

    async def now(self, machine: machines.Machine) -> machines.Machine:
        async with self.store.read() as tx:
            return await machines.get(tx, machine.id)

    async def there(self) -> list[str]:
        return [found.sandbox_id for found in await self.source.sandboxes()]


@pytest.fixture
async def post(tmp_path: pathlib.Path, daemon: runtime.Runtime) -> AsyncIterator[Post]:
    # Records are dated by the real clock, so the watcher's starts there too.
    wall = clock.ManualClock(clock.SystemClock().now_ms())
    with databases.database("sqlite", tmp_path) as url:
        async with (
            engine.open_store(url, databases.box(), wall=wall) as store,
            inside.emptied(lane.Gated(tmp_path / "data", daemon)) as source,
        ):
            yield Post(store, wall, source)


async def test_what_runs_is_left_alone(post: Post) -> None:
    machine = await post.booting()
    post.wall.advance(ORPHAN_S * 10)

    await post.keeper.check(machine.sandbox_id, post.source)
    await post.keeper.remove_orphans()

    assert (await post.now(machine)).phase is PHASE.BOOTING
    assert await post.there() == [machine.sandbox_id]


async def test_a_sandbox_that_did_not_survive_the_hosts_restart_is_made_anew(post: Post) -> None:
    machine = await post.booting()
    folder = post.source.records.folder(machine.sandbox_id)
    record = folder.load()
    assert record is not None
    folder.save(msgspec.structs.replace(record, host_boot_id="another-boot"))

    await post.keeper.check(machine.sandbox_id, post.source)

    now = await post.now(machine)
    assert (now.phase, now.generation) == (PHASE.CREATED, 2)
    assert now.reason is not None
    assert now.reason.kind == "sandbox_vanished"
    assert now.reason.message == f"the sandbox {machine.id}-1 is gone: the host was restarted"
    assert post.woken == [machine.id]
    folder.save(record)


async def test_one_of_an_older_generation_or_of_a_failed_machine_is_not_made_anew(post: Post) -> None:
    older, failed = await post.booting(), await post.booting()
    async with post.store.write() as tx:
        await machines.move(tx, older.id, phases.RECREATE, next_generation=True)
        await machines.move(tx, failed.id, phases.FAIL)
    for machine in (older, failed):
        await post.source.delete(machine.sandbox_id)
        await post.keeper.check(machine.sandbox_id, post.source)

    assert (await post.now(older)).generation == 2
    assert (await post.now(failed)).phase is PHASE.FAILED
    assert post.woken == []


async def test_not_knowing_is_not_gone(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = await post.booting()

    async def cannot_tell(_sandbox: ids.SandboxId) -> None:
        raise errors.ProviderFailed("cannot look: too many open files")

    monkeypatch.setattr(post.source, "inspect", cannot_tell)
    with pytest.raises(errors.ProviderFailed):
        await post.keeper.check(machine.sandbox_id, post.source)

    assert (await post.now(machine)).phase is PHASE.BOOTING


async def test_a_sandbox_of_no_machine_is_removed_when_it_is_old_enough(post: Post) -> None:
    await post.source.create(inside.spec("stranger"))
    await post.keeper.remove_orphans()
    assert await post.there() == ["stranger-1"]

    post.wall.advance(ORPHAN_S + 1)
    await post.keeper.remove_orphans()

    assert await post.there() == []
    assert post.source.records.home(ids.MachineId("stranger")).exists()


async def test_one_of_a_deleted_machine_is_removed(post: Post) -> None:
    """A call to the provider that was cut off can still come to its end after the deletion."""
    machine = await post.booting()
    async with post.store.write() as tx:
        await machines.move(tx, machine.id, phases.DELETE)
        await machines.move(tx, machine.id, phases.DELETED)
        run = await stage_runs.unfinished(tx, machine.id, phases.Lane.PROVIDER)
        if run is not None:
            await stage_runs.finish(tx, run, "done")
    post.wall.advance(ORPHAN_S + 1)

    await post.keeper.remove_orphans()

    assert await post.there() == []


async def test_an_older_generation_is_removed_but_never_while_its_machine_is_worked_on(post: Post) -> None:
    machine = await post.booting()
    async with post.store.write() as tx:
        await machines.move(tx, machine.id, phases.RECREATE, next_generation=True)
    post.wall.advance(ORPHAN_S + 1)
    await post.keeper.remove_orphans()
    assert await post.there() == [machine.sandbox_id]

    async with post.store.write() as tx:
        run = await stage_runs.unfinished(tx, machine.id, phases.Lane.PROVIDER)
        assert run is not None
        await stage_runs.finish(tx, run, "done")
    await post.keeper.remove_orphans()

    assert await post.there() == []
    async with post.store.read() as tx:
        row = await sandboxes.get(tx, machine.id, 1)
    assert row is not None
    assert row.end_reason == "orphan: its machine has a newer sandbox"


async def test_a_newer_generation_than_we_know_is_left_alone(post: Post) -> None:
    """A restored backup must not end what runs."""
    machine = await post.booting()
    await post.source.delete(machine.sandbox_id)
    await post.source.create(inside.spec(machine.id, generation=7))
    post.wall.advance(ORPHAN_S + 1)

    await post.keeper.remove_orphans()

    assert await post.there() == [f"{machine.id}-7"]
