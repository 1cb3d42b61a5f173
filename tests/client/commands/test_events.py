import asyncio
import json

import pytest

from paddock.client.commands import events as command
from paddock.contracts import errors, events
from tests.client.commands import conftest
from tests.support import fake_fleet, fake_gateway


async def test_events_shows_what_was_kept_and_ends(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.to_active(machine)

    shown = await paddock("events")

    lines = [line.split() for line in shown.stdout.splitlines()]
    assert [line[2] for line in lines] == [
        events.MACHINE_CREATED,
        *(event for _, event, _ in fake_fleet.WAY_TO_ACTIVE),
    ]
    assert lines[-1][3:] == [machine, "phase=active", "generation=1"]


async def test_only_the_last_events_that_fit_are_shown(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.to_active(machine)
    gateway.fleet.happen(events.PROJECT_UPDATED, project="p9")

    shown = await paddock(
        *("events", "--project", "demo", "--machine", machine, "--type", events.MACHINE_ACTIVATED),
        *("--type", events.MACHINE_CREATED, "--last", "3", "--json"),
    )

    told = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [(one["cursor"], one["event"]["type"]) for one in told] == [("e1-6", events.MACHINE_ACTIVATED)]


async def test_no_event_at_all_is_no_event_shown(paddock: conftest.Paddock) -> None:
    shown = await paddock("events")

    assert (shown.exit_code, shown.stdout) == (0, "")


async def test_events_begin_with_the_oldest_that_is_kept(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.to_active(machine)
    gateway.first_kept = 5

    shown = await paddock("events")

    assert len(shown.stdout.splitlines()) == 2


async def test_a_stream_whose_events_are_all_gone_shows_none(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.to_active(machine)
    gateway.first_kept = len(gateway.fleet.events) + 1

    shown = await paddock("events")

    assert (shown.exit_code, shown.stdout) == (0, "")


async def test_a_newest_event_that_does_not_come_ends_after_a_silence(
    paddock: conftest.Paddock,
    gateway: fake_gateway.FakeGateway,
    machine: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "QUIET_S", 0.05)
    gateway.fleet.to_active(machine)
    gateway.unsent.add(6)

    shown = await paddock("events")

    assert len(shown.stdout.splitlines()) == 5


async def test_follow_goes_on_over_a_cut_link_until_it_is_refused(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async def drive() -> None:
        # The first subscription asks for the newest cursor only; the second is the one that follows.
        await gateway.subscribers(2)
        gateway.fleet.to_active(machine)
        gateway.cut_links()
        await gateway.subscribers(3)
        gateway.troubles["events"].append(errors.CursorExpired("cannot follow any further: made anew"))
        gateway.fleet.happen(events.PROJECT_UPDATED, project="p1")

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        driving = group.create_task(drive())
        shown = await paddock("events", "--follow", "--json")

    assert driving.done()
    assert shown.exit_code == 73
    assert [json.loads(line)["event"]["id"] for line in shown.stdout.splitlines()] == [
        f"ev{number}" for number in range(2, 8)
    ]
    assert "made anew" in shown.stderr


async def test_following_can_begin_after_a_cursor(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.to_active(machine)
    gateway.troubles["events"].append(errors.CursorExpired("cannot follow any further"))

    shown = await paddock("events", "--since", "e1-4")

    assert [line.split()[2] for line in shown.stdout.splitlines()] == [
        events.MACHINE_SETUP_PUSHED,
        events.MACHINE_ACTIVATED,
    ]


async def test_a_reason_is_shown_as_its_sentence(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway
) -> None:
    reason = {"stage": "setup", "message": "cannot clone", "logTail": "many\nlines"}
    gateway.fleet.happen(events.MACHINE_FAILED, project="p1", machine="m1", reason=reason, steps=["one"])

    shown = await paddock("events")

    assert shown.stdout.rstrip().endswith('reason=cannot clone steps=["one"]')


async def test_a_moment_in_an_event_is_shown_as_people_read_it(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway
) -> None:
    gateway.fleet.happen(
        events.MACHINE_CONNECTION_CHANGED, project="p1", machine="m1", lastSeenAt=1_800_000_000_000
    )

    shown = await paddock("events")

    assert shown.stdout.rstrip().endswith("lastSeenAt=2027-01-15T08:00:00.000Z")


async def test_a_type_that_is_none_is_refused_with_a_sentence(paddock: conftest.Paddock) -> None:
    refused = await paddock("events", "--type", "nope")

    assert refused.exit_code != 0
    assert "cannot" in refused.stderr
    assert "bug" not in refused.stderr
