import json
import pathlib

import pytest

from paddock.contracts import errors
from paddock.contracts.api import machines
from tests.client.commands import conftest
from tests.support import fake_fleet, fake_gateway


async def test_the_command_s_output_and_exit_code_are_ours(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.exec = lambda asked: fake_fleet.exec_result(3, stdout="out\n", stderr="err\n")

    ended = await paddock("exec", machine, "--", "make", "test")

    assert (ended.exit_code, ended.stdout, ended.stderr) == (3, "out\n", "err\n")
    assert gateway.fleet.commands_run[0].command == ["make", "test"]


@pytest.mark.parametrize(
    ("typed", "run"),
    [
        (("--", "ls", "-l"), ["ls", "-l"]),
        (("ls", "-l"), ["ls", "-l"]),
        (("ls", "--json"), ["ls", "--json"]),
        (("--", "git", "--", "x"), ["git", "--", "x"]),
        (("--", "--"), ["--"]),
    ],
)
async def test_options_after_the_machine_are_the_command_s(
    paddock: conftest.Paddock,
    gateway: fake_gateway.FakeGateway,
    machine: str,
    typed: tuple[str, ...],
    run: list[str],
) -> None:
    await paddock("exec", machine, *typed)

    assert [one.command for one in gateway.fleet.commands_run] == [run]


async def test_an_option_where_the_command_should_be_is_pointed_out(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    refused = await paddock("exec", machine, "--json", "--", "ls")

    assert refused.exit_code == 78
    assert "options go before the machine" in refused.stderr
    assert gateway.fleet.commands_run == []


async def test_where_with_what_and_how_long_are_passed_on(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "secret").write_text("hunter2\n")

    await paddock(
        *("exec", "--cwd", "~/app", "--env", "A=1", "--env", "S@secret", "--timeout-s", "7", "-i"),
        *(machine, "cat"),
        stdin="given",
    )

    asked = gateway.fleet.commands_run[0]
    assert (asked.cwd, asked.timeout_s, asked.stdin) == ("~/app", 7.0, "given")
    assert asked.env == {"A": "1", "S": "hunter2"}


async def test_standard_input_is_left_alone_unless_asked_for(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    await paddock("exec", machine, "cat", stdin="not given")

    assert gateway.fleet.commands_run[0].stdin == ""


@pytest.mark.parametrize(
    ("ended", "exit_code", "told"),
    [
        (fake_fleet.exec_result(None, signal="SIGKILL"), 137, "it was ended by SIGKILL"),
        (fake_fleet.exec_result(None, signal="SIGODD"), 128, "it was ended by SIGODD"),
        (fake_fleet.exec_result(None, signal="SIGKILL", timed_out=True), 124, "it was killed after 120 s"),
        (fake_fleet.exec_result(0, stdout_omitted_bytes=9), 0, "9 bytes of its stdout were left out"),
    ],
)
async def test_an_end_that_is_no_exit_code_is_told(
    paddock: conftest.Paddock,
    gateway: fake_gateway.FakeGateway,
    machine: str,
    ended: machines.ExecResult,
    exit_code: int,
    told: str,
) -> None:
    gateway.fleet.exec = lambda asked: ended

    result = await paddock("exec", machine, "x")

    assert result.exit_code == exit_code
    assert result.stderr.startswith(f"paddock: {told}")


@pytest.mark.parametrize(
    ("fault", "exit_code"),
    [
        (errors.CommandNotFound("cannot run nope: there is no such command"), 72),
        (errors.MachineOffline(), 75),
        (errors.MachineNotReady(), 75),
        (errors.OutcomeUnknown(), 70),
        (errors.Unauthenticated(), 77),
        (errors.Internal(data={"requestId": "r-7"}), 70),
        (errors.RemoteFault("the machine is on holiday"), 76),
    ],
)
async def test_what_did_not_run_has_no_invented_exit_code(
    paddock: conftest.Paddock,
    gateway: fake_gateway.FakeGateway,
    machine: str,
    fault: errors.Fault,
    exit_code: int,
) -> None:
    gateway.troubles["machine.exec"].extend([fault] * 4)

    result = await paddock("exec", machine, "x")

    assert result.exit_code == exit_code
    assert result.stderr.startswith(f"paddock: {fault.message.rstrip('.')}; ")
    assert result.stdout == ""


async def test_a_bug_of_the_gateway_is_told_with_its_request(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.troubles["machine.exec"].extend([errors.Internal(data={"requestId": "r-7"})] * 4)

    assert "under request r-7" in (await paddock("exec", machine, "x")).stderr


async def test_a_gateway_that_is_not_there_says_how_to_start_one(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway
) -> None:
    await gateway.stop()

    result = await paddock("exec", "m1", "x")

    assert result.exit_code == 71
    assert "`paddock up`" in result.stderr


async def test_json_is_the_whole_result(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.exec = lambda asked: fake_fleet.exec_result(3, stdout="out")

    result = await paddock("exec", "--json", machine, "x")

    assert result.exit_code == 3
    assert json.loads(result.stdout)["stdout"] == "out"
