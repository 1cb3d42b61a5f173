"""Machines: asked for once, waited for, shown, retried, deleted; and their history."""

import asyncio
from typing import Any

import pytest

from paddock.contracts import errors, phases
from paddock.store import machines
from tests.gateway import door
from tests.support import databases

Phase = phases.Phase


async def test_a_new_machine_is_created_and_says_all_there_is_to_say(gateway: door.Door) -> None:
    project = await gateway.project(provider="process")

    made = await gateway.call("machine.create", projectId=project, name="box", labels={"team": "a"})

    assert made == await gateway.call("machine.get", machineId=made["id"])
    assert (made["phase"], made["connection"], made["health"]) == ("created", "never", "unknown")
    assert (made["name"], made["labels"], made["provider"]) == ("box", {"team": "a"}, "process")
    assert made["sandboxId"] == f"{made['id']}-1"
    assert made["limitAt"] > made["createdAt"]


async def test_the_same_client_token_and_request_give_the_same_machine(gateway: door.Door) -> None:
    project = await gateway.project()
    request = {"projectId": project, "clientToken": "one", "labels": {"a": "1", "b": "2"}, "env": {"A": "1"}}
    again = {**request, "labels": {"b": "2", "a": "1"}, "waitS": 0.01}

    first = await gateway.call("machine.create", **request)
    second = await gateway.call("machine.create", **again)

    assert second["id"] == first["id"]
    assert second["env"] == first["env"], "its variables were set once"


async def test_the_same_client_token_with_another_request_is_a_conflict(gateway: door.Door) -> None:
    project = await gateway.project()
    request = {"projectId": project, "clientToken": "one", "labels": {"a": "1"}, "env": {"A": "1"}}
    made = await gateway.call("machine.create", **request)
    changes: list[dict[str, Any]] = [{"name": "x"}, {"labels": {"a": "2"}}, {"env": {"A": "2"}}, {"env": {}}]
    for change in changes:
        refused = await gateway.refused("machine.create", **{**request, **change})

        assert (refused["data"]["kind"], refused["data"]["machineId"]) == ("conflict", made["id"])


@pytest.mark.parametrize("kind", databases.KINDS)
async def test_many_creates_with_one_token_at_once_make_one_machine(gateway: door.Door) -> None:
    project = await gateway.project()

    async with asyncio.TaskGroup() as group:
        calls = [
            group.create_task(gateway.call("machine.create", projectId=project, clientToken="one"))
            for _ in range(8)
        ]

    assert len({call.result()["id"] for call in calls}) == 1
    assert len((await gateway.call("machine.list", projectId=project))["machines"]) == 1


async def test_waiting_ends_as_soon_as_the_machine_is_there(gateway: door.Door) -> None:
    project = await gateway.project()

    async def lead_to_active() -> None:
        found = await gateway.ground.until(machines.find, lambda rows: len(rows) == 1)
        for way in (phases.CLAIM, phases.BOOT, phases.SET_UP, phases.PROBE, phases.ACTIVATE):
            async with gateway.ground.store.write() as tx:
                await machines.move(tx, found[0].id, way)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(lead_to_active())
        made = await gateway.call("machine.create", projectId=project, waitS=60)

    assert made["phase"] == "active"
    assert made["activeAt"] is not None


async def test_waiting_ends_with_the_reason_when_the_machine_fails(gateway: door.Door) -> None:
    project = await gateway.project()

    async def fail() -> None:
        found = await gateway.ground.until(machines.find, lambda rows: len(rows) == 1)
        reason = machines.reason_of(
            "provision", errors.ProviderFailed("cannot start: no disk"), log_tail="boom"
        )
        async with gateway.ground.store.write() as tx:
            await machines.move(tx, found[0].id, phases.FAIL, reason=reason)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(fail())
        made = await gateway.call("machine.create", projectId=project, waitS=60)

    assert made["phase"] == "failed"
    assert made["reason"] == {
        "stage": "provision", "kind": "provider_failed", "message": "cannot start: no disk", "data": {}, "logTail": "boom",
    }  # fmt: skip


async def test_waiting_in_vain_answers_how_it_is(gateway: door.Door) -> None:
    project = await gateway.project()

    made = await gateway.call("machine.create", projectId=project, waitS=0.05)

    assert made["phase"] == "created"


async def test_delete_works_from_every_phase_and_twice(gateway: door.Door) -> None:
    for phase in (Phase.CREATED, Phase.BOOTING, Phase.SETTING_UP, Phase.ACTIVE, Phase.FAILED, Phase.DELETING):
        machine = await gateway.machine_in(phase)

        first = await gateway.call("machine.delete", machineId=machine)
        second = await gateway.call("machine.delete", machineId=machine)

        assert first["phase"] == second["phase"] == "deleting"


async def test_deleting_waits_until_it_is_deleted_and_the_row_stays(gateway: door.Door) -> None:
    machine = await gateway.machine_in(Phase.DELETING)
    async with gateway.ground.store.write() as tx:
        await machines.move(tx, machine, phases.DELETED)

    gone = await gateway.call("machine.delete", machineId=machine, waitS=60)

    assert gone["phase"] == "deleted"
    assert (await gateway.call("machine.get", machineId=machine))["phase"] == "deleted"
    assert (await gateway.call("machine.list"))["machines"] == []
    assert len((await gateway.call("machine.list", phases=["deleted"]))["machines"]) == 1


async def test_a_failed_machine_is_retried_in_the_next_generation(gateway: door.Door) -> None:
    machine = await gateway.machine_in(Phase.FAILED)

    retried = await gateway.call("machine.retry", machineId=machine)

    assert (retried["phase"], retried["generation"], retried["reason"]) == ("created", 2, None)


async def test_only_a_failed_machine_can_be_retried(gateway: door.Door) -> None:
    machine = await gateway.machine_in(Phase.ACTIVE)

    refused = await gateway.refused("machine.retry", machineId=machine)

    assert (refused["data"]["kind"], refused["data"]["phase"]) == ("wrong_phase", "active")


async def test_pages_show_every_machine_once(gateway: door.Door) -> None:
    project = await gateway.project()
    made = {(await gateway.call("machine.create", projectId=project))["id"] for _ in range(5)}
    first = await gateway.call("machine.list", projectId=project, limit=3)
    rest = await gateway.call("machine.list", projectId=project, limit=3, cursor=first["nextCursor"])

    assert (len(first["machines"]), len(rest["machines"]), rest["nextCursor"]) == (3, 2, None)
    assert {one["id"] for one in first["machines"] + rest["machines"]} == made


async def test_history_tells_every_phase_and_every_run(gateway: door.Door) -> None:
    machine = await gateway.machine_in(Phase.PROBING)

    told = await gateway.call("machine.history", machineId=machine)

    assert [move["phase"] for move in told["moves"]] == [
        "created",
        "provisioning",
        "booting",
        "setting_up",
        "probing",
    ]
    assert told["moves"][0]["afterMs"] is None
    assert all(move["afterMs"] >= 0 for move in told["moves"][1:])
    assert {run["stage"] for run in told["runs"]} >= {"provision", "setup"}
    assert told["runs"][0]["causedBy"]
