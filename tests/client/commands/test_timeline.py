import io

import pytest
import rich.console

from paddock.client import client as gateway_client
from paddock.client import watch
from paddock.client.commands import desk, timeline
from paddock.contracts import events, phases
from tests.support import fake_fleet, fake_gateway


def drawn(fleet: fake_fleet.FakeFleet, machine_id: str) -> timeline.Drawn:
    machine = fleet.machines[machine_id]
    made = timeline.Drawn(machine, since=machine.created_at, until=watch.SETTLED)
    for body in fleet.events:
        made.happened(events.decode(body))
    return made


def shown(made: timeline.Drawn) -> list[list[str]]:
    """The words of each line, as a terminal of 100 columns shows them."""
    console = rich.console.Console(file=io.StringIO(), width=100)
    console.print(made)
    assert isinstance(console.file, io.StringIO)
    return [line.split() for line in console.file.getvalue().splitlines()]


def fleet_with_machine() -> tuple[fake_fleet.FakeFleet, str]:
    fleet = fake_fleet.FakeFleet(lambda: None)
    return fleet, fleet.add_machine(fleet.add_project().id).id


def test_a_phase_that_goes_on_shows_what_passes() -> None:
    fleet, machine = fleet_with_machine()
    fleet.move(machine, phases.Phase.PROVISIONING, events.MACHINE_PROVISIONING, after_ms=5)

    lines = shown(drawn(fleet, machine))

    assert lines[0][:4] == ["✓", "created", "5", "ms"]
    assert lines[1][:2] == ["…", "provisioning"]
    assert lines[1][3] == "ms"


def test_the_end_shows_how_long_it_all_took() -> None:
    fleet, machine = fleet_with_machine()
    fleet.to_active(machine)

    assert shown(drawn(fleet, machine))[-1] == ["✓", "active", "after", "2.02", "s", "ready", "for", "work"]


def test_a_failure_is_marked() -> None:
    fleet, machine = fleet_with_machine()
    fleet.fail(machine, "no disk")

    assert shown(drawn(fleet, machine))[-1][:2] == ["✗", "failed"]


def test_each_line_is_given_once() -> None:
    fleet, machine = fleet_with_machine()
    made = drawn(fleet, machine)
    first = list(made.new_lines())
    fleet.to_active(machine)
    for body in fleet.events:
        made.happened(events.decode(body))

    assert first == []
    assert [line.split()[0] for line in made.new_lines()] == [
        "created", "provisioning", "booting", "setting_up", "probing", "active",
    ]  # fmt: skip
    assert list(made.new_lines()) == []


async def test_a_terminal_is_drawn_on_until_the_machine_settles(
    gateway: fake_gateway.FakeGateway, client: gateway_client.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    console = rich.console.Console(file=screen, width=100, force_terminal=True)
    monkeypatch.setattr(desk, "console", lambda *, is_stderr: console)
    machine = gateway.fleet.add_machine(gateway.fleet.add_project().id)
    gateway.fleet.to_active(machine.id)

    settled = await timeline.follow(desk.Desk(client, is_json=False), machine, since=machine.created_at)

    assert settled.phase is phases.Phase.ACTIVE
    assert "setting_up" in screen.getvalue()
    assert "after 2.02 s" in screen.getvalue()
