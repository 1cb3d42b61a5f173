"""`paddock exec` against the fake gateway: arguments, bytes, exit codes, signals. Terminals are in test_terminal.py."""

import asyncio
import json
import os
import pathlib
import shlex
import signal
from collections.abc import Callable
from typing import Any

import pytest

from paddock.client.commands import foreground
from paddock.contracts import errors
from paddock.contracts.api import executions, machines
from tests.client.commands import conftest, person
from tests.support import fake_fleet, fake_gateway, fake_tools


def ends(
    exit_code: int | None = 0, stdout: bytes = b"", stderr: bytes = b"", **how: Any
) -> Callable[[fake_tools.FakeExecution], None]:
    """A command that writes something and ends."""

    def act(execution: fake_tools.FakeExecution) -> None:
        execution.say(stdout)
        execution.complain(stderr)
        execution.end(exit_code, **how)

    return act


def asked_of(gateway: fake_gateway.FakeGateway) -> executions.MachineExecStart:
    return only(gateway).asked


def only(gateway: fake_gateway.FakeGateway) -> fake_tools.FakeExecution:
    (execution,) = gateway.fleet.executions.values()
    return execution


async def started(gateway: fake_gateway.FakeGateway) -> fake_tools.FakeExecution:
    async with asyncio.timeout(person.WITHIN_S):
        await gateway.fleet.started.wait()
    return only(gateway)


async def test_the_command_s_bytes_and_exit_code_are_ours(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.on_exec = ends(3, b"out\xff\x00\n", b"err\xfe\n")

    ended = await paddock("exec", machine, "--", "make", "test")

    assert (ended.exit_code, ended.stdout_bytes, ended.stderr_bytes) == (3, b"out\xff\x00\n", b"err\xfe\n")
    assert asked_of(gateway).command == ["make", "test"]


async def test_output_comes_while_the_command_runs(gateway: fake_gateway.FakeGateway, machine: str) -> None:
    async with person.on_pipes(gateway, "exec", machine, "x") as process:
        execution = await started(gateway)
        assert process.stdout is not None
        execution.say(b"first")
        first = await process.stdout.read(100)
        execution.say(b"second")
        second = await process.stdout.read(100)
        execution.end(0)
        rest = await process.communicate()

    assert (first, second, rest, process.returncode) == (b"first", b"second", (b"", b""), 0)


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
    gateway.fleet.on_exec = ends()

    await paddock("exec", machine, *typed)

    assert asked_of(gateway).command == run


async def test_an_option_where_the_command_should_be_is_pointed_out(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    refused = await paddock("exec", machine, "--json", "--", "ls")

    assert refused.exit_code == 78
    assert "options go before the machine" in refused.stderr
    assert gateway.fleet.executions == {}


async def test_where_as_whom_with_what_and_how_long_are_passed_on(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    gateway.fleet.on_exec = ends()

    await paddock(
        *("exec", "--cwd", "app", "--env", "A=1", "--env", "S@secret", "--timeout-s", "7", "--user", "app"),
        *("--id", "build-7", machine, "cat"),
    )

    asked = asked_of(gateway)
    assert (asked.cwd, asked.timeout_s, asked.user, asked.id) == ("~/app", 7.0, "app", "build-7")
    assert asked.env == {"A": "1", "S": "hunter2"}
    assert (asked.stdin, asked.pty, asked.background) == (False, False, True)


async def test_without_a_time_limit_there_is_none(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.on_exec = ends()

    await paddock("exec", machine, "x")

    assert asked_of(gateway).timeout_s is None


@pytest.mark.parametrize(
    ("how", "exit_code", "told"),
    [
        ({"exit_code": None, "signal": "SIGKILL"}, 137, "it was ended by SIGKILL"),
        ({"exit_code": None, "signal": "SIG\x1b[31mODD"}, 128, r"it was ended by SIG\x1b[31mODD"),
        ({"exit_code": None, "signal": "SIGKILL", "timed_out": True}, 124, "it was killed at the end of its"),
        ({"exit_code": None, "lost": True}, 70, "cannot say how command"),
        (
            {
                "exit_code": None,
                "state": "failed",
                "failure": {"code": 5001, "message": "cannot run x: no x"},
            },
            72,
            "cannot run x: no x; look at its spelling",
        ),
        ({"exit_code": None, "state": "unknown"}, 70, "cannot say how command"),
    ],
)
async def test_an_end_that_is_no_exit_code_is_told(
    paddock: conftest.Paddock,
    gateway: fake_gateway.FakeGateway,
    machine: str,
    how: dict[str, Any],
    exit_code: int,
    told: str,
) -> None:
    gateway.fleet.on_exec = lambda execution: execution.end(**how)

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
        (errors.Conflict("cannot start it: the id was used for another command"), 73),
        (errors.Unauthenticated(), 77),
        (errors.Internal(data={"requestId": "r-7"}), 70),
        (errors.RemoteFault("the machine is on holiday"), 76),
    ],
)
@pytest.mark.parametrize("mode", ["streamed", "--json"])
async def test_what_did_not_run_has_no_invented_exit_code(
    paddock: conftest.Paddock,
    gateway: fake_gateway.FakeGateway,
    machine: str,
    fault: errors.Fault,
    exit_code: int,
    mode: str,
) -> None:
    gateway.troubles["machine.execStart" if mode == "streamed" else "machine.exec"].extend([fault] * 4)

    result = await paddock("exec", *([] if mode == "streamed" else [mode]), machine, "x")

    assert result.exit_code == exit_code
    assert fault.message.rstrip(".") in result.stderr
    assert result.stdout == ""


async def test_a_bug_of_the_gateway_is_told_with_its_request(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.troubles["machine.execStart"].extend([errors.Internal(data={"requestId": "r-7"})] * 4)

    assert "under request r-7" in (await paddock("exec", machine, "x")).stderr


async def test_a_gateway_that_is_not_there_says_how_to_start_one(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway
) -> None:
    await gateway.stop()

    result = await paddock("exec", "m1", "x")

    assert result.exit_code == 71
    assert "`paddock up`" in result.stderr


async def test_a_cut_link_shows_in_nothing(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    whole = bytes(range(256)) * 4000
    gateway.frame_bytes = 1000
    gateway.troubles["machine.execAttach"].extend([errors.ChannelBroken(), fake_gateway.CUT_BEFORE])

    def cut(execution: fake_tools.FakeExecution) -> None:
        gateway.cut_links()
        execution.end(0)

    def act(execution: fake_tools.FakeExecution) -> None:
        execution.say(whole)
        asyncio.get_running_loop().call_later(0.3, cut, execution)

    gateway.fleet.on_exec = act

    result = await paddock("exec", machine, "x")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout_bytes == whole


async def test_output_that_was_given_up_before_we_read_it_is_counted(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.troubles["machine.execAttach"].append(errors.OutputLimit(data={"firstOffset": 4}))

    def act(execution: fake_tools.FakeExecution) -> None:
        execution.say(b"lostkept")
        execution.kept_from["stdout"] = 4
        execution.end(0)

    gateway.fleet.on_exec = act

    result = await paddock("exec", machine, "x")

    assert result.stdout == "kept"
    assert result.stderr == "paddock: 4 bytes of its stdout are left out: they are no longer kept\n"


async def test_a_full_disk_here_says_how_to_come_back(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.on_exec = ends(0, b"out")
    full = os.open("/dev/full", os.O_WRONLY)
    async with person.on_pipes(gateway, "exec", "--id", "x", machine, "x", stdout=full) as process:
        os.close(full)
        _, remarks = await process.communicate()

    assert process.returncode == 78
    assert remarks.decode().splitlines() == [
        f"paddock: it may still run; come back with: paddock attach {machine} x",
        "paddock: cannot write to our stdout: No space left on device",
    ]


async def test_remarks_never_go_to_standard_output(gateway: fake_gateway.FakeGateway, machine: str) -> None:
    gateway.fleet.on_exec = ends(None, b"out", b"err", signal="SIGKILL")
    process = await asyncio.create_subprocess_shell(
        f"{shlex.join(person.command('exec', machine, 'x'))} 2>&-",
        env=person.environment(gateway),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()

    assert (process.returncode, output) == (137, b"out")


async def test_detached_only_its_id_is_printed(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    result = await paddock("exec", "-d", machine, "sleep", "inf")

    assert (result.exit_code, result.stdout) == (0, f"{asked_of(gateway).id}\n")
    assert only(gateway).end_of is None


async def test_the_same_id_runs_the_command_once_and_shows_it_again(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.on_exec = ends(4, b"once\n")

    results = [await paddock("exec", "--id", "once", machine, "x") for _ in range(2)]

    assert [(one.exit_code, one.stdout) for one in results] == [(4, "once\n")] * 2
    assert list(gateway.fleet.executions) == ["once"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-t",), "cannot give it a terminal: our standard input is no terminal"),
        (("-t", "-d"), "cannot give it this terminal"),
        (("-t", "--json"), "cannot give it this terminal"),
        (("-i", "-d"), "cannot give our standard input to a command we leave"),
        (("--id", "a b"), "cannot use these parameters: id"),
    ],
)
async def test_what_cannot_be_together_is_refused_before_anything_runs(
    gateway: fake_gateway.FakeGateway, machine: str, arguments: tuple[str, ...], told: str
) -> None:
    async with person.on_pipes(gateway, "exec", *arguments, machine, "x") as process:
        _, remarks = await process.communicate(b"")

    assert process.returncode == 78
    assert told in remarks.decode()
    assert gateway.fleet.executions == {}


class TestStandardInput:
    async def test_is_left_alone_unless_asked_for(
        self, gateway: fake_gateway.FakeGateway, machine: str
    ) -> None:
        gateway.fleet.on_exec = ends()
        reading, writing = os.pipe()
        os.write(writing, b"for the next one")
        async with person.on_pipes(gateway, "exec", machine, "cat", stdin=reading) as process:
            await process.communicate()

        assert not asked_of(gateway).stdin
        assert os.read(reading, 100) == b"for the next one"
        os.close(reading)
        os.close(writing)

    @pytest.mark.parametrize("size", [0, 5, 1_000_000])
    async def test_passes_whole_with_its_end(
        self, gateway: fake_gateway.FakeGateway, machine: str, size: int
    ) -> None:
        given = os.urandom(size)

        async def act(execution: fake_tools.FakeExecution) -> None:
            await execution.until(lambda: execution.is_stdin_closed)
            execution.end(0)

        async with (
            person.on_pipes(gateway, "exec", "-i", machine, "cat") as process,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(process.communicate(given))
            await act(await started(gateway))

        assert process.returncode == 0
        assert bytes(only(gateway).stdin) == given

    async def test_from_a_file_passes_whole(
        self, gateway: fake_gateway.FakeGateway, machine: str, tmp_path: pathlib.Path
    ) -> None:
        (tmp_path / "given").write_bytes(b"x" * 600_000)
        with (tmp_path / "given").open("rb") as file:
            async with person.on_pipes(gateway, "exec", "-i", machine, "cat", stdin=file.fileno()) as process:
                execution = await started(gateway)
                await execution.until(lambda: execution.is_stdin_closed)
                execution.end(0)
                await process.wait()

        assert bytes(execution.stdin) == b"x" * 600_000

    async def test_that_is_closed_is_at_its_end(
        self, gateway: fake_gateway.FakeGateway, machine: str
    ) -> None:
        process = await asyncio.create_subprocess_shell(
            f"{shlex.join(person.command('exec', '-i', machine, 'cat'))} <&-", env=person.environment(gateway)
        )
        execution = await started(gateway)
        await execution.until(lambda: execution.is_stdin_closed)
        execution.end(4)

        assert await process.wait() == 4
        assert bytes(execution.stdin) == b""

    async def test_that_stays_open_does_not_hold_us(
        self, gateway: fake_gateway.FakeGateway, machine: str
    ) -> None:
        gateway.fleet.on_exec = ends(6, b"done")
        async with person.on_pipes(gateway, "exec", "-i", machine, "true") as process:
            assert process.stdout is not None
            async with asyncio.timeout(person.WITHIN_S):
                output = await process.stdout.read()
                code = await process.wait()

        assert (output, code) == (b"done", 6)

    async def test_that_nobody_takes_any_more_is_no_fault(
        self, gateway: fake_gateway.FakeGateway, machine: str
    ) -> None:
        def act(execution: fake_tools.FakeExecution) -> None:
            execution.on_stdin = lambda data: execution.end(0)

        gateway.fleet.on_exec = act
        async with person.on_pipes(gateway, "exec", "-i", machine, "head", "-1") as process:
            output, remarks = await process.communicate(b"x" * 2_000_000)

        assert (process.returncode, output, remarks) == (0, b"", b"")

    async def test_is_not_given_twice_to_a_command_that_is_asked_for_again(
        self, gateway: fake_gateway.FakeGateway, machine: str
    ) -> None:
        async with person.on_pipes(gateway, "exec", "-i", "--id", "load", machine, "psql") as process:
            execution = await started(gateway)
            assert process.stdin is not None
            process.stdin.write(b"one\n")
            await execution.until(lambda: bytes(execution.stdin) == b"one\n")
            process.kill()
            await process.wait()
        again = person.on_pipes(gateway, "exec", "-i", "--id", "load", machine, "psql")
        async with again as process, asyncio.TaskGroup() as tasks:
            tasks.create_task(process.communicate(b"one\ntwo\n"))
            await execution.until(lambda: execution.is_stdin_closed)
            execution.end(0)

        assert bytes(execution.stdin) == b"one\ntwo\n"


class TestSignals:
    async def test_ctrl_c_reaches_the_command_and_its_end_is_ours(
        self, gateway: fake_gateway.FakeGateway, machine: str
    ) -> None:
        async with person.on_pipes(gateway, "exec", machine, "make") as process:
            execution = await started(gateway)

            def on_signal(_: str) -> None:
                execution.say(b"bye\n")
                execution.end(None, signal="SIGINT")

            execution.on_signal = on_signal
            await followed(execution, process)
            process.send_signal(signal.SIGINT)
            output, remarks = await process.communicate()

        assert execution.signals == ["INT"]
        assert (process.returncode, output) == (130, b"bye\n")
        assert remarks == b"paddock: it was ended by SIGINT\n"

    async def test_a_second_ctrl_c_terminates_and_a_third_leaves_it_running(
        self, gateway: fake_gateway.FakeGateway, machine: str
    ) -> None:
        async with person.on_pipes(gateway, "exec", "--id", "stubborn", machine, "make") as process:
            execution = await started(gateway)
            await followed(execution, process)
            process.send_signal(signal.SIGINT)
            await execution.until(lambda: execution.signals == ["INT"])
            process.send_signal(signal.SIGINT)
            await execution.until(lambda: execution.signals == ["INT", "TERM"])
            process.send_signal(signal.SIGINT)
            _, remarks = await process.communicate()

        assert process.returncode == 130
        assert remarks.decode().splitlines() == [
            "paddock: sent it SIGTERM; Ctrl-C once more leaves it running",
            f"paddock: left it running; come back with: paddock attach {machine} stubborn",
        ]
        assert execution.end_of is None

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    async def test_who_ends_us_leaves_it_running(
        self, gateway: fake_gateway.FakeGateway, machine: str, number: signal.Signals, code: int
    ) -> None:
        async with person.on_pipes(gateway, "exec", machine, "make") as process:
            execution = await started(gateway)
            await followed(execution, process)
            process.send_signal(number)
            await process.communicate()

        assert process.returncode == code
        assert (execution.signals, execution.end_of) == ([], None)

    async def test_without_a_reader_the_command_gets_sigpipe_and_we_end_in_silence(
        self, gateway: fake_gateway.FakeGateway, machine: str
    ) -> None:
        reading, writing = os.pipe()
        async with person.on_pipes(gateway, "exec", machine, "yes", stdout=writing) as process:
            os.close(writing)
            execution = await started(gateway)
            execution.on_signal = lambda name: execution.end(None, signal="SIGPIPE")
            execution.say(b"y\n")
            assert await asyncio.to_thread(os.read, reading, 10) == b"y\n"
            os.close(reading)
            execution.say(b"y\n")
            _, remarks = await process.communicate()

        assert (process.returncode, remarks) == (141, b"")
        assert execution.signals == ["PIPE"]

    async def test_a_command_that_ignores_sigpipe_is_named(
        self, gateway: fake_gateway.FakeGateway, machine: str
    ) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        gateway.fleet.on_exec = lambda execution: execution.say(b"y\n")
        async with person.on_pipes(gateway, "exec", "--id", "deaf", machine, "x", stdout=writing) as process:
            os.close(writing)
            _, remarks = await process.communicate()

        assert process.returncode == 141
        assert (
            remarks.decode() == f"paddock: left it running; come back with: paddock attach {machine} deaf\n"
        )

    async def test_a_reader_who_pauses_holds_up_no_signal(
        self, gateway: fake_gateway.FakeGateway, machine: str
    ) -> None:
        reading, writing = os.pipe()
        async with person.on_pipes(gateway, "exec", machine, "yes", stdout=writing) as process:
            execution = await started(gateway)
            execution.say(b"y\n" * 500_000)
            assert await asyncio.to_thread(os.read, reading, 2) == b"y\n"
            for names in (["INT"], ["INT", "TERM"]):
                process.send_signal(signal.SIGINT)
                await execution.until(lambda names=names: execution.signals == names)  # type: ignore[misc]
            process.send_signal(signal.SIGINT)
            await process.communicate()
        os.close(reading)
        os.close(writing)

        assert process.returncode == 130


class TestJson:
    async def test_is_one_result_of_one_call(
        self, paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
    ) -> None:
        gateway.fleet.exec = lambda asked: fake_fleet.exec_result(3, stdout="out")

        result = await paddock("exec", "--json", "-i", "--id", "c1", machine, "x", stdin="given")

        asked = gateway.fleet.commands_run[0]
        assert result.exit_code == 3
        assert json.loads(result.stdout)["stdout"] == "out"
        assert (asked.stdin, asked.timeout_s, asked.call_id) == ("given", 120.0, "c1")

    @pytest.mark.parametrize(
        ("ended", "exit_code"),
        [
            (fake_fleet.exec_result(None, signal="SIGKILL"), 137),
            (fake_fleet.exec_result(None, signal="SIGODD"), 128),
            (fake_fleet.exec_result(None, signal="SIGKILL", timed_out=True), 124),
        ],
    )
    async def test_has_the_same_exit_codes(
        self,
        paddock: conftest.Paddock,
        gateway: fake_gateway.FakeGateway,
        machine: str,
        ended: machines.ExecResult,
        exit_code: int,
    ) -> None:
        gateway.fleet.exec = lambda asked: ended

        assert (await paddock("exec", "--json", machine, "x")).exit_code == exit_code

    async def test_as_another_user_has_the_same_shape(
        self, paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
    ) -> None:
        gateway.fleet.on_exec = ends(2, b"out", b"err")

        result = await paddock("exec", "--json", "--user", "app", machine, "x")

        shown = machines.ExecResult.model_validate_json(result.stdout)
        assert (result.exit_code, shown.exit_code, shown.stdout, shown.stderr) == (2, 2, "out", "err")
        assert (asked_of(gateway).user, asked_of(gateway).timeout_s) == ("app", 120.0)

    async def test_detached_is_the_command_as_it_is(
        self, paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
    ) -> None:
        result = await paddock("exec", "--json", "-d", machine, "x")

        assert json.loads(result.stdout)["id"] == asked_of(gateway).id


async def followed(execution: fake_tools.FakeExecution, process: asyncio.subprocess.Process) -> None:
    """Wait until somebody shows what the command writes, and so listens to signals."""
    assert process.stdout is not None
    execution.say(b"ready\n")
    async with asyncio.timeout(person.WITHIN_S):
        assert await process.stdout.readexactly(6) == b"ready\n"


def test_ctrl_c_means_more_within_two_seconds() -> None:
    assert foreground.AGAIN_S == 2.0
