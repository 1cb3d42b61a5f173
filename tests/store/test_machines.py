"""Machines move along the table of moves, once each, and say so."""

import asyncio
from typing import Any

import msgspec
import pytest

from paddock.contracts import errors, events, phases
from paddock.store import engine, machines, outbox, projects, sandboxes, stage_runs


async def _made(store: engine.Store, project: projects.Project, **more: Any) -> machines.Machine:
    async with store.write(actor="gateway") as tx:
        return await machines.create(tx, project=project.id, provider="process", **more)


async def _facts(store: engine.Store) -> list[events.Event]:
    async with store.read() as tx:
        return [events.decode(row.body) for row in await outbox.unsent(tx, limit=1000)]


async def _walk(store: engine.Store, machine: machines.Machine, *ways: phases.Move) -> machines.Machine:
    moved: machines.Machine | None = machine
    async with store.write(actor="test") as tx:
        for way in ways:
            moved = await machines.move(tx, machine.id, way)
            assert moved is not None, way.name
    assert moved is not None
    return moved


async def test_a_new_machine_has_its_first_stage_queued_and_its_event_written(
    store: engine.Store, project: projects.Project
) -> None:
    machine = await _made(store, project)

    async with store.read() as tx:
        run = await stage_runs.unfinished(tx, machine.id, phases.Lane.PROVIDER)
    facts = [fact for fact in await _facts(store) if fact.machineid == machine.id]
    assert run is not None
    assert run.stage is phases.Stage.PROVISION
    assert [(fact.type, fact.sequence, fact.actor) for fact in facts] == [
        (events.MACHINE_CREATED, 1, "gateway")
    ]
    assert run.caused_by == facts[0].id


async def test_the_same_client_token_and_request_give_the_same_machine(
    store: engine.Store, project: projects.Project
) -> None:
    first = await _made(store, project, client_token="once", request_digest="d1")

    again = await _made(store, project, client_token="once", request_digest="d1")

    assert again.id == first.id
    with pytest.raises(errors.Conflict):
        await _made(store, project, client_token="once", request_digest="d2")


async def test_twenty_creates_with_one_token_at_once_make_one_machine(
    store: engine.Store, other: engine.Store, project: projects.Project
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_made(one, project, client_token="once", request_digest="d"))
            for one in [store, other] * 10
        ]

    assert len({task.result().id for task in tasks}) == 1


async def test_a_move_from_another_phase_changes_nothing(
    store: engine.Store, project: projects.Project
) -> None:
    machine = await _made(store, project)

    async with store.write() as tx:
        moved = await machines.move(tx, machine.id, phases.ACTIVATE)

    async with store.read() as tx:
        unchanged = await machines.get(tx, machine.id)
    assert moved is None
    assert unchanged == machine


async def test_two_who_move_at_once_cannot_both_win(
    store: engine.Store, other: engine.Store, project: projects.Project
) -> None:
    machine = await _made(store, project)

    async def claim(one: engine.Store) -> bool:
        async with one.write() as tx:
            return await machines.move(tx, machine.id, phases.CLAIM) is not None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(claim(one)) for one in [store, other] * 5]

    assert sorted(task.result() for task in tasks) == [False] * 9 + [True]


async def test_numbers_of_one_machine_have_no_gap_and_no_repetition(
    store: engine.Store, project: projects.Project
) -> None:
    machine = await _made(store, project)
    await _walk(store, machine, phases.CLAIM, phases.BOOT, phases.SET_UP, phases.PROBE, phases.ACTIVATE)

    facts = [fact for fact in await _facts(store) if fact.machineid == machine.id]

    assert [fact.sequence for fact in facts] == [1, 2, 3, 4, 5, 6]
    assert [fact.data["phase"] for fact in facts] == [
        "created", "provisioning", "booting", "setting_up", "probing", "active",
    ]  # fmt: skip


async def test_failing_says_why_and_leaves_no_guest_work(
    store: engine.Store, project: projects.Project
) -> None:
    machine = await _made(store, project)
    await _walk(store, machine, phases.CLAIM, phases.BOOT, phases.SET_UP)
    reason = machines.reason_of("setup", errors.PathInUse(data={"path": "/x"}), log_tail="last line")

    async with store.write() as tx:
        failed = await machines.move(tx, machine.id, phases.FAIL, reason=reason)

    async with store.read() as tx:
        guest = await stage_runs.unfinished(tx, machine.id, phases.Lane.GUEST)
        shown = await machines.get(tx, machine.id)
        trail = await machines.history(tx, machine.id)
    assert failed is not None
    assert guest is None
    assert shown.reason == reason
    assert trail[-1].reason == reason
    assert (await _facts(store))[-1].data["reason"] == msgspec.to_builtins(reason)


@pytest.mark.parametrize("phase", sorted(phases.DELETE.sources))
async def test_delete_works_from_every_phase(
    store: engine.Store, project: projects.Project, phase: phases.Phase
) -> None:
    machine = await _made(store, project)
    async with store.write() as tx:
        there = phases.Move("test", frozenset(phases.Phase), phase, "machine.moved")
        await machines.move(tx, machine.id, there)

    async with store.write() as tx:
        moved = await machines.move(tx, machine.id, phases.DELETE)

    async with store.read() as tx:
        run = await stage_runs.unfinished(tx, machine.id, phases.Lane.PROVIDER)
    assert moved is not None
    assert run is not None
    assert run.stage is phases.Stage.DESTROY


async def test_ready_and_external_id_committed_at_the_same_moment_start_setup_once(
    store: engine.Store, other: engine.Store, project: projects.Project
) -> None:
    for _ in range(10):
        machine = await _made(store, project)
        await _walk(store, machine, phases.CLAIM)
        async with store.write() as tx:
            await sandboxes.begin(tx, machine.id, 1, node="here")

        async def external(machine: machines.Machine = machine) -> bool:
            async with store.write(actor="provisioner") as tx:
                assert await machines.lock(tx, machine.id)
                box = await sandboxes.made(tx, machine.id, 1, "x1")
                assert box is not None
                return (
                    box.ready_boot is not None
                    and await machines.move(tx, machine.id, phases.SET_UP) is not None
                )

        async def ready(machine: machines.Machine = machine) -> bool:
            async with other.write(actor="registrar") as tx:
                assert await machines.lock(tx, machine.id)
                box = await sandboxes.ready(tx, machine.id, 1, boot="b1", daemon_version="1")
                assert box is not None
                return (
                    box.external_id is not None
                    and await machines.move(tx, machine.id, phases.SET_UP) is not None
                )

        async with asyncio.TaskGroup() as group:
            both = [group.create_task(external()), group.create_task(ready())]

        async with store.read() as tx:
            run = await stage_runs.unfinished(tx, machine.id, phases.Lane.GUEST)
        assert sorted(task.result() for task in both) == [False, True]
        assert run is not None
        assert run.stage is phases.Stage.SETUP


async def test_pages_cover_everything_once_newest_first(
    store: engine.Store, project: projects.Project
) -> None:
    made = [await _made(store, project) for _ in range(7)]

    seen: list[str] = []
    after = None
    while True:
        async with store.read() as tx:
            page = await machines.find(tx, project=project.id, after=after, limit=3)
        seen += [machine.id for machine in page]
        if len(page) < 3:
            break
        after = (page[-1].created_at, page[-1].id)

    assert sorted(seen) == sorted(machine.id for machine in made)
    assert len(seen) == 7


async def test_limits_are_shifted_by_the_time_nobody_was_there(
    store: engine.Store, project: projects.Project
) -> None:
    machine = await _made(store, project)
    assert machine.limit_at is not None

    async with store.write() as tx:
        await machines.shift_limits(tx, 5000)

    async with store.read() as tx:
        assert (await machines.get(tx, machine.id)).limit_at == machine.limit_at + 5000


async def test_connection_changes_are_announced_once(store: engine.Store, project: projects.Project) -> None:
    machine = await _made(store, project)

    async with store.write() as tx:
        first = await machines.set_connection(tx, machine.id, phases.Connection.ONLINE, last_seen_at=5)
        second = await machines.set_connection(tx, machine.id, phases.Connection.ONLINE, last_seen_at=6)

    changes = [fact for fact in await _facts(store) if fact.type == events.MACHINE_CONNECTION_CHANGED]
    assert (first, second) == (True, False)
    assert [fact.data["connection"] for fact in changes] == ["online"]
