import asyncio

import pytest

from paddock.client import client as gateway_client
from paddock.client import watch
from paddock.contracts import events, ids, phases
from paddock.contracts.api import machines
from tests.support import fake_gateway

P = phases.Phase
WAY = [
    (P.CREATED, 5),
    (P.PROVISIONING, 200),
    (P.BOOTING, 300),
    (P.SETTING_UP, 1500),
    (P.PROBING, 12),
    (P.ACTIVE, None),
]


@pytest.fixture
def machine(gateway: fake_gateway.FakeGateway) -> machines.Machine:
    return gateway.fleet.add_machine(gateway.fleet.add_project().id)


def durations(timeline: watch.Timeline) -> list[tuple[phases.Phase, int | None]]:
    return [(step.phase, step.took_ms) for step in timeline.steps()]


async def settled(
    client: gateway_client.Client, timeline: watch.Timeline, until: frozenset[phases.Phase] = watch.SETTLED
) -> machines.Machine:
    async with asyncio.timeout(5):
        return await watch.settle(client, timeline, until=until)


async def test_each_phase_shows_how_long_it_took(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway, machine: machines.Machine
) -> None:
    timeline = watch.Timeline(machine, since=machine.created_at)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(settled(client, timeline))
        await gateway.has_subscriber.wait()
        gateway.fleet.to_active(machine.id)

    assert waiting.result().phase is P.ACTIVE
    assert durations(timeline) == WAY


async def test_a_machine_that_has_settled_is_answered_at_once(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway, machine: machines.Machine
) -> None:
    gateway.fleet.to_active(machine.id)
    timeline = watch.Timeline(machine, since=machine.created_at)

    assert (await settled(client, timeline)).phase is P.ACTIVE
    assert durations(timeline) == WAY


async def test_events_that_are_lost_cost_no_more_than_a_look(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway, machine: machines.Machine
) -> None:
    timeline = watch.Timeline(machine, since=machine.created_at)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(settled(client, timeline))
        await gateway.has_subscriber.wait()
        gateway.fleet.to_active(machine.id, is_told=False)

    assert waiting.result().phase is P.ACTIVE
    assert durations(timeline) == WAY


async def test_a_cut_link_does_not_end_the_waiting(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway, machine: machines.Machine
) -> None:
    timeline = watch.Timeline(machine, since=machine.created_at)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(settled(client, timeline))
        await gateway.has_subscriber.wait()
        gateway.cut_links()
        await gateway.has_subscriber.wait()
        gateway.fleet.to_active(machine.id)

    assert waiting.result().phase is P.ACTIVE


async def test_a_failure_ends_the_waiting_with_its_reason(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway, machine: machines.Machine
) -> None:
    timeline = watch.Timeline(machine, since=machine.created_at)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(settled(client, timeline))
        await gateway.has_subscriber.wait()
        gateway.fleet.fail(machine.id, "cannot clone")

    reason = waiting.result().reason
    assert reason is not None
    assert reason.message == "cannot clone"
    assert durations(timeline) == [(P.CREATED, 700), (P.FAILED, None)]


async def test_a_retry_shows_only_what_came_since(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway, machine: machines.Machine
) -> None:
    gateway.fleet.fail(machine.id, "cannot clone")
    again = await client.machines.retry(machine.id)
    gateway.fleet.to_active(machine.id)
    timeline = watch.Timeline(again, since=again.phase_since)

    await settled(client, timeline)

    assert durations(timeline) == WAY
    assert {step.generation for step in timeline.steps()} == {2}


async def test_a_deletion_can_be_waited_for(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway, machine: machines.Machine
) -> None:
    deleting = await client.machines.delete(machine.id)
    timeline = watch.Timeline(deleting, since=deleting.phase_since)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(settled(client, timeline, frozenset({P.DELETED})))
        await gateway.has_subscriber.wait()
        gateway.fleet.move(machine.id, P.DELETED, events.MACHINE_DELETED)

    assert waiting.result().phase is P.DELETED
    assert durations(timeline) == [(P.DELETING, 100), (P.DELETED, None)]


def test_the_setup_step_under_way_is_shown_until_it_ends(machine: machines.Machine) -> None:
    timeline = watch.Timeline(machine, since=machine.created_at)

    def happen(event_type: str, **data: str) -> str:
        at_ms = watch.moment_ms(machine.created_at)
        project = ids.ProjectId(machine.project_id)
        timeline.happened(events.new(event_type, event_id="e", at_ms=at_ms, project=project, data=dict(data)))
        return timeline.doing

    assert happen(events.MACHINE_SETUP_STEP_STARTED, title="clone ~/app") == "clone ~/app"
    assert happen(events.MACHINE_ENV_CHANGED) == "clone ~/app"
    assert happen(events.MACHINE_SETUP_STEP_FINISHED, title="clone ~/app") == ""


def test_events_that_are_no_move_are_no_step(
    gateway: fake_gateway.FakeGateway, machine: machines.Machine
) -> None:
    timeline = watch.Timeline(machine, since=machine.created_at)
    gateway.fleet.happen(
        events.MACHINE_HEALTH_CHANGED,
        project="p1",
        machine=machine.id,
        sequence=2,
        phase="active",
        generation=1,
    )
    gateway.fleet.happen(
        events.MACHINE_ACTIVATED, project="p1", machine=machine.id, sequence=3, phase="holiday"
    )

    assert [timeline.happened(events.decode(body)) for body in gateway.fleet.events] == [
        P.CREATED,
        None,
        None,
    ]


def test_a_phase_entered_again_while_in_it_goes_on(
    gateway: fake_gateway.FakeGateway, machine: machines.Machine
) -> None:
    timeline = watch.Timeline(machine, since=machine.created_at)
    for _ in range(2):
        gateway.fleet.move(machine.id, P.SETTING_UP, events.MACHINE_DAEMON_STATUS_REPORTED, after_ms=10)
    gateway.fleet.move(machine.id, P.PROBING, events.MACHINE_SETUP_PUSHED, after_ms=10)
    for body in [*gateway.fleet.events, *gateway.fleet.events]:
        timeline.happened(events.decode(body))

    assert durations(timeline) == [(P.CREATED, 10), (P.SETTING_UP, 20), (P.PROBING, None)]
