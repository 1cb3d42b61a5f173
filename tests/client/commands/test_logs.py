"""`paddock logs` and what `paddock attach` shows where no terminal is."""

import asyncio
import json
import os

import pytest

from paddock.contracts import errors
from tests.client.commands import conftest, person
from tests.support import fake_gateway, fake_tools


@pytest.fixture
async def execution(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> fake_tools.FakeExecution:
    """A command that wrote to both, and runs."""
    assert (await paddock("exec", "-d", "--id", "build", machine, "make")).exit_code == 0
    found = gateway.fleet.executions["build"]
    found.say(b"one\xff\n")
    found.complain(b"oops\n")
    found.say(b"two\n")
    return found


async def test_all_that_was_written_is_printed_to_where_it_was_written(
    paddock: conftest.Paddock, machine: str, execution: fake_tools.FakeExecution
) -> None:
    shown = await paddock("logs", machine, "build")

    assert (shown.exit_code, shown.stdout_bytes, shown.stderr_bytes) == (0, b"one\xff\ntwo\n", b"oops\n")


@pytest.mark.parametrize(
    ("options", "stdout", "stderr"),
    [
        (("--stdout",), b"one\xff\ntwo\n", b""),
        (("--stderr",), b"", b"oops\n"),
        (("--stdout", "--stderr"), b"one\xff\ntwo\n", b"oops\n"),
        (("--tail", "4"), b"two\n", b"ops\n"),
        (("--tail", "0"), b"", b""),
        (("--tail", "1000"), b"one\xff\ntwo\n", b"oops\n"),
    ],
)
@pytest.mark.parametrize("is_following", [False, True])
async def test_a_part_of_it(
    paddock: conftest.Paddock,
    machine: str,
    execution: fake_tools.FakeExecution,
    options: tuple[str, ...],
    stdout: bytes,
    stderr: bytes,
    is_following: bool,
) -> None:
    if is_following:
        execution.end(9)

    shown = await paddock("logs", *options, *(["--follow"] if is_following else []), machine, "build")

    assert (shown.exit_code, shown.stdout_bytes, shown.stderr_bytes) == (0, stdout, stderr)


async def test_more_than_fits_in_one_answer_is_printed_whole(
    paddock: conftest.Paddock, machine: str, execution: fake_tools.FakeExecution
) -> None:
    whole = os.urandom(1_000_000)
    execution.written["stdout"][:] = whole

    assert (await paddock("logs", "--stdout", machine, "build")).stdout_bytes == whole


async def test_what_is_no_longer_kept_is_counted(
    paddock: conftest.Paddock, machine: str, execution: fake_tools.FakeExecution
) -> None:
    execution.kept_from["stdout"] = 5

    shown = await paddock("logs", "--stdout", machine, "build")

    assert shown.stdout == "two\n"
    assert shown.stderr == "paddock: the first 5 bytes of its stdout are no longer kept\n"


async def test_followed_a_gap_is_counted_and_passed_over(
    paddock: conftest.Paddock,
    gateway: fake_gateway.FakeGateway,
    machine: str,
    execution: fake_tools.FakeExecution,
) -> None:
    gateway.troubles["machine.execAttach"].append(errors.OutputLimit(data={"firstOffset": 5}))
    look = gateway.fleet._machine_exec_wait
    # It goes on writing after we looked, and its oldest bytes go.
    gateway.fleet._machine_exec_wait = lambda asked: (look(asked), execution.kept_from.update(stdout=5))[0]  # type: ignore[method-assign]
    execution.end(0)

    shown = await paddock("logs", "-f", "--stdout", machine, "build")

    assert shown.stdout == "two\n"
    assert shown.stderr == "paddock: 5 bytes of its stdout are left out: they are no longer kept\n"


async def test_followed_it_goes_on_to_the_end(
    gateway: fake_gateway.FakeGateway, machine: str, execution: fake_tools.FakeExecution
) -> None:
    async with person.on_pipes(gateway, "logs", "-f", machine, "build") as process:
        assert process.stdout is not None
        async with asyncio.timeout(person.WITHIN_S):
            assert await process.stdout.readexactly(9) == b"one\xff\ntwo\n"
        execution.say(b"three\n")
        execution.end(9)
        rest = await process.communicate()

    assert (process.returncode, rest) == (0, (b"three\n", b"oops\n"))


async def test_an_unread_pipe_ends_us_and_not_the_command(
    gateway: fake_gateway.FakeGateway, machine: str, execution: fake_tools.FakeExecution
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    async with person.on_pipes(gateway, "logs", "-f", machine, "build", stdout=writing) as process:
        os.close(writing)
        _, remarks = await process.communicate()

    assert (process.returncode, remarks) == (141, b"")
    assert (execution.signals, execution.end_of) == ([], None)


async def test_json_is_how_it_is_with_both_ends_of_its_output(
    paddock: conftest.Paddock, machine: str, execution: fake_tools.FakeExecution
) -> None:
    execution.end(9)

    shown = json.loads((await paddock("logs", "--json", "--follow", machine, "build")).stdout)

    assert (shown["execution"]["exitCode"], shown["stderr"]) == (9, "oops\n")


async def test_a_command_nobody_knows_is_missing(paddock: conftest.Paddock, machine: str) -> None:
    refused = await paddock("logs", machine, "nope")

    assert (refused.exit_code, refused.stderr) == (72, "paddock: cannot find command nope\n")


class TestAttach:
    async def test_shows_all_that_is_kept_and_ends_as_it_ends(
        self, paddock: conftest.Paddock, machine: str, execution: fake_tools.FakeExecution
    ) -> None:
        execution.end(9)

        shown = await paddock("attach", machine, "build")

        assert (shown.exit_code, shown.stdout_bytes, shown.stderr_bytes) == (9, b"one\xff\ntwo\n", b"oops\n")

    async def test_without_i_leaves_it_as_it_is(
        self, gateway: fake_gateway.FakeGateway, machine: str, execution: fake_tools.FakeExecution
    ) -> None:
        async with person.on_pipes(gateway, "attach", machine, "build") as process:
            assert process.stdout is not None
            async with asyncio.timeout(person.WITHIN_S):
                await process.stdout.readexactly(9)
            process.send_signal(2)
            _, remarks = await process.communicate()

        assert process.returncode == 130
        # Its stderr may come before or after what we say.
        assert f"paddock attach {machine} build\n" in remarks.decode()
        assert execution.signals == []

    async def test_with_i_gives_it_our_standard_input(
        self, gateway: fake_gateway.FakeGateway, machine: str, paddock: conftest.Paddock
    ) -> None:
        async with person.on_pipes(gateway, "exec", "-i", "--id", "load", machine, "psql") as first:
            assert first.stdin is not None
            first.stdin.write(b"one\n")
            async with asyncio.timeout(person.WITHIN_S):
                await gateway.fleet.started.wait()
            execution = gateway.fleet.executions["load"]
            await execution.until(lambda: bytes(execution.stdin) == b"one\n")
            first.kill()
            await first.wait()
        back = person.on_pipes(gateway, "attach", "-i", machine, "load")
        async with back as process, asyncio.TaskGroup() as tasks:
            tasks.create_task(process.communicate(b"two\n"))
            await execution.until(lambda: execution.is_stdin_closed)
            execution.end(0)

        assert bytes(execution.stdin) == b"one\ntwo\n"

    async def test_says_when_its_terminal_cannot_be_taken_over_from_here(
        self, gateway: fake_gateway.FakeGateway, machine: str
    ) -> None:
        async with person.at_terminal(gateway, "exec", "-t", "--id", "t", machine, "vim") as somebody:
            async with asyncio.timeout(person.WITHIN_S):
                await gateway.fleet.started.wait()
            async with person.on_pipes(gateway, "attach", "-i", machine, "t") as process:
                _, remarks = await process.communicate(b"")
            somebody.closes()

        assert process.returncode == 78
        assert b"cannot take its terminal over: our standard input is no terminal" in remarks
