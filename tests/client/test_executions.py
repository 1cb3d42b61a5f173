import pytest

from paddock.client import machine as machine_of
from paddock.client import process
from paddock.contracts import errors
from tests.support import fake_gateway, fake_tools


def of(gateway: fake_gateway.FakeGateway, running: process.Process) -> fake_tools.FakeExecution:
    return gateway.fleet.executions[running.id]


async def test_a_command_is_started_with_everything_given(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(
        ["make", "test"],
        id="build-1",
        cwd="/src",
        env={"A": "1"},
        user="dev",
        pty=True,
        columns=100,
        rows=30,
        timeout_s=9,
    )

    asked = of(gateway, running).asked
    assert running.id == "build-1"
    assert (asked.command, asked.cwd, asked.env, asked.user) == (["make", "test"], "/src", {"A": "1"}, "dev")
    assert (asked.pty, asked.columns, asked.rows, asked.timeout_s, asked.background) == (
        True,
        100,
        30,
        9,
        True,
    )


async def test_a_start_whose_answer_was_lost_starts_one_command(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    gateway.troubles["machine.execStart"].extend([fake_gateway.CUT_AFTER, fake_gateway.CUT_BEFORE])

    running = await machine.exec.start(["make"])

    assert list(gateway.fleet.executions) == [running.id]
    assert gateway.names_asked() == ["machine.execStart"] * 2


async def test_an_id_finds_its_command_and_refuses_another(machine: machine_of.Machine) -> None:
    first = await machine.exec.start(["make"], id="one")

    again = await machine.exec.start(["make"], id="one")
    with pytest.raises(errors.Conflict):
        await machine.exec.start(["rm"], id="one")

    assert again.execution == first.execution


async def test_bad_parameters_are_refused_here(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    with pytest.raises(errors.InvalidParams, match="command"):
        await machine.exec.start([])
    with pytest.raises(errors.InvalidParams, match="id"):
        machine.exec.get("no id")
    with pytest.raises(errors.InvalidParams, match="columns"):
        await machine.exec.get("x").resize(0, 5)
    assert gateway.asked == []


async def test_commands_are_listed_newest_first_over_all_pages(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        await machine.exec.start(["make"], id=f"c{number}")
    gateway.fleet.executions["c5"].end()
    monkeypatch.setattr("paddock.contracts.executions.LIST_MAX", 3)

    assert [one.id for one in await machine.exec.list()] == ["c6", "c5", "c4", "c3", "c2", "c1", "c0"]
    assert [one.id for one in await machine.exec.list(running_only=True, limit=2)] == ["c6", "c4"]


async def test_a_command_that_is_one_text_is_refused_with_what_a_list_looks_like(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    with pytest.raises(errors.InvalidParams, match=r'give a list, such as \["ls", "-la"\]'):
        await machine.exec.start("ls -la")
    assert gateway.asked == []
