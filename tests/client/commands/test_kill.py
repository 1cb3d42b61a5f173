"""`paddock kill` against the fake gateway."""

import pytest

from tests.client.commands import conftest
from tests.support import fake_gateway, fake_tools


@pytest.fixture
async def running(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> fake_tools.FakeExecution:
    assert (await paddock("exec", "-d", "--id", "build", machine, "make")).exit_code == 0
    return gateway.fleet.executions["build"]


@pytest.mark.parametrize(
    ("options", "sent"),
    [((), "TERM"), (("--signal", "KILL"), "KILL"), (("-s", "sigint"), "SIGINT")],
)
async def test_a_command_gets_the_signal_that_is_named_and_sigterm_otherwise(
    paddock: conftest.Paddock,
    machine: str,
    running: fake_tools.FakeExecution,
    options: tuple[str, ...],
    sent: str,
) -> None:
    killed = await paddock("kill", machine, "build", *options)

    assert (killed.exit_code, killed.stderr) == (0, "")
    assert killed.stdout == f"sent SIG{sent.removeprefix('SIG')} to build\n"
    assert running.signals == [sent]


async def test_in_json_there_is_nothing_to_say(
    paddock: conftest.Paddock, machine: str, running: fake_tools.FakeExecution
) -> None:
    assert (await paddock("kill", "--json", machine, "build")).stdout == "{}\n"
    assert running.signals == ["TERM"]


async def test_a_command_that_has_ended_or_is_unknown_is_told_as_such(
    paddock: conftest.Paddock, machine: str, running: fake_tools.FakeExecution
) -> None:
    running.end(0)

    ended = await paddock("kill", machine, "build")
    unknown = await paddock("kill", machine, "nobody")

    assert (ended.exit_code, ended.stdout) == (73, "")
    assert ended.stderr == "paddock: cannot send a signal to command build: it has ended\n"
    assert (unknown.exit_code, unknown.stderr) == (72, "paddock: cannot find command nobody\n")
