import json

import pytest

from paddock.client.commands import shell
from paddock.contracts.api import executions
from tests.client.commands import conftest, person
from tests.support import fake_gateway


@pytest.fixture
async def commands(paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str) -> None:
    for name in ("one", "two", "three"):
        assert (await paddock("exec", "-d", "--id", name, machine, "make", name, "a b")).exit_code == 0
    gateway.fleet.executions["one"].say(b"x" * 2048)
    gateway.fleet.executions["one"].end(3)
    gateway.fleet.executions["two"].end(None, signal="SIGKILL", timed_out=True)


def lines(text: str) -> list[list[str]]:
    return [line.split(maxsplit=3) for line in text.splitlines()]


@pytest.mark.usefixtures("commands")
async def test_what_runs_is_shown(paddock: conftest.Paddock, machine: str) -> None:
    shown = await paddock("ps", machine)

    head, *rows = shown.stdout.splitlines()
    assert head.split() == ["ID", "STATE", "EXIT", "STARTED", "TOOK", "OUTPUT", "COMMAND"]
    assert len(rows) == 1
    assert rows[0].split(maxsplit=2)[:2] == ["three", "running"]
    assert rows[0].endswith("make three 'a b'")


@pytest.mark.usefixtures("commands")
async def test_all_are_shown_newest_first_with_how_they_ended(
    paddock: conftest.Paddock, machine: str
) -> None:
    shown = await paddock("ps", "--all", machine)

    rows = shown.stdout.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["three", "two", "one"]
    assert "timed out" in rows[1]
    assert rows[2].split()[1:3] == ["ended", "3"]
    assert "2.0 KiB" in rows[2]


@pytest.mark.usefixtures("commands")
async def test_what_runs_has_taken_the_time_on_the_gateway_s_clock(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.now_ms += 125_000

    assert "2 min 05 s" in (await paddock("ps", machine)).stdout


@pytest.mark.usefixtures("commands")
async def test_json_is_the_contract_s(paddock: conftest.Paddock, machine: str) -> None:
    shown = await paddock("ps", "--json", "-a", machine)

    found = executions.Executions.model_validate_json(shown.stdout)
    assert [one.id for one in found.executions] == ["three", "two", "one"]
    assert json.loads(shown.stdout)["executions"][2]["exitCode"] == 3


async def test_nothing_is_none(paddock: conftest.Paddock, machine: str) -> None:
    assert (await paddock("ps", machine)).stdout == "none\n"


async def test_no_command_steers_our_terminal(paddock: conftest.Paddock, machine: str) -> None:
    await paddock("exec", "-d", machine, "echo", "\x1b[31mred\x07\nline")

    shown = (await paddock("ps", machine)).stdout

    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert r"\x1b[31mred\x07 line" in shown


async def test_a_long_or_many_line_command_is_one_line_as_wide_as_the_terminal(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    script = "\nset -e\n" + "make everything\n" * 40
    await paddock("exec", "-d", "--id", "7f3c09a1b2d4", machine, "sh", "-c", script)
    gateway.fleet.executions["7f3c09a1b2d4"].say(b"x" * 200_000)
    gateway.fleet.now_ms += 2_199_000

    piped = (await paddock("ps", machine)).stdout
    async with person.at_terminal(
        gateway, "ps", machine, columns=80, env={"NO_COLOR": "1", "TERM": "dumb"}
    ) as somebody:
        assert await somebody.ends() == 0

    assert len(piped.splitlines()) == len(somebody.seen.splitlines()) == 2
    assert "sh -c ' set -e make everything make" in piped
    for text in (piped, somebody.seen.decode()):
        row = text.splitlines()[1].rstrip()
        assert row.split()[:2] == ["7f3c09a1b2d4", "running"]
        assert row.endswith("…")
        assert len(row) <= 240


async def test_what_paddock_shell_started_is_called_a_login_shell(
    paddock: conftest.Paddock, machine: str
) -> None:
    await paddock("exec", "-d", machine, *shell.COMMAND)

    assert (await paddock("ps", machine)).stdout.splitlines()[1].endswith("  (login shell)")
