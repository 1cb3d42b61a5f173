"""`paddock exec -t`, `shell` and `attach -i` on real pseudo-terminals, against the fake gateway."""

import asyncio
import os
import signal
import termios

import pytest

from paddock.client.commands import shell
from paddock.contracts import errors
from tests.client.commands import person
from tests.support import fake_gateway, fake_tools


def prompts(execution: fake_tools.FakeExecution) -> None:
    """A program that echoes what is typed in capitals, and ends with 5 at a `q`."""
    execution.say(b"$ ")

    def on_stdin(data: bytes) -> None:
        execution.say(data.upper())
        if b"q" in data:
            execution.end(5)

    execution.on_stdin = on_stdin


@pytest.fixture
def gateway(gateway: fake_gateway.FakeGateway) -> fake_gateway.FakeGateway:
    gateway.fleet.on_exec = prompts
    return gateway


def only(gateway: fake_gateway.FakeGateway) -> fake_tools.FakeExecution:
    (execution,) = gateway.fleet.executions.values()
    return execution


async def test_keys_are_bytes_and_bytes_are_shown_as_they_are(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async with person.at_terminal(gateway, "exec", "-t", machine, "--", "vim") as somebody:
        before = somebody.modes()
        await somebody.sees(b"$ ")
        assert somebody.is_raw()
        somebody.types(b"a\x03\x1a\x04\x1c\r\x1b[A")
        await somebody.sees(b"A\x03\x1a\x04\x1c\r\x1b[A")
        only(gateway).say(b"\x1b[2J\nx\n")
        await somebody.sees(b"\x1b[2J\nx\n")
        somebody.types(b"q")
        code = await somebody.ends()

        assert code == 5
        assert somebody.modes() == before
    assert (only(gateway).asked.pty, only(gateway).asked.stdin) == (True, True)
    assert only(gateway).asked.env == {"TERM": "vt100"}
    assert only(gateway).signals == []


async def test_many_keys_at_once_arrive_in_order(gateway: fake_gateway.FakeGateway, machine: str) -> None:
    given = b"".join(b"%04d" % number for number in range(5000))
    async with person.at_terminal(gateway, "exec", "-it", machine, "cat") as somebody:
        await somebody.sees(b"$ ")
        for begin in range(0, len(given), 1000):
            await asyncio.to_thread(somebody.types, given[begin : begin + 1000])
        await only(gateway).until(lambda: len(only(gateway).stdin) == len(given))
        somebody.types(b"q")
        await somebody.ends()

    assert bytes(only(gateway).stdin) == given + b"q"


async def test_the_size_of_the_window_is_the_command_s_from_the_start_and_follows(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async with person.at_terminal(gateway, "exec", "-t", machine, "vim", columns=91, rows=17) as somebody:
        await somebody.sees(b"$ ")
        asked = only(gateway).asked
        assert (asked.columns, asked.rows) == (91, 17)
        for size in ((120, 40), (60, 20)):
            somebody.resizes(*size)
            await only(gateway).until(lambda size=size: only(gateway).sizes[-1] == size)  # type: ignore[misc]
        somebody.types(b"q")

        assert await somebody.ends() == 5


async def test_a_terminal_without_a_size_is_taken_for_80_by_24(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async with person.at_terminal(gateway, "exec", "-t", machine, "vim", columns=0, rows=0) as somebody:
        await somebody.sees(b"$ ")

    assert (only(gateway).asked.columns, only(gateway).asked.rows) == (80, 24)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_the_terminal_is_given_back_when_we_are_ended(
    gateway: fake_gateway.FakeGateway, machine: str, number: signal.Signals
) -> None:
    async with person.at_terminal(gateway, "exec", "-t", machine, "vim") as somebody:
        before = somebody.modes()
        await somebody.sees(b"$ ")
        somebody.process.send_signal(number)
        code = await somebody.ends()

        assert code == 128 + number
        assert somebody.modes() == before
    assert only(gateway).end_of is None


async def test_the_terminal_is_given_back_when_the_command_cannot_be_followed(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async with person.at_terminal(gateway, "exec", "-t", machine, "vim") as somebody:
        before = somebody.modes()
        await somebody.sees(b"$ ")
        gateway.end_streams(errors.NotFound("cannot find the command any more"))
        code = await somebody.ends()

        assert code == 72
        assert somebody.modes() == before
        assert somebody.seen.endswith(b"paddock: cannot find the command any more\r\n")


async def test_who_is_stopped_and_goes_on_has_the_terminal_again(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async with person.at_terminal(gateway, "exec", "-t", machine, "vim") as somebody:
        before = somebody.modes()
        await somebody.sees(b"$ ")
        somebody.process.send_signal(signal.SIGSTOP)
        termios.tcsetattr(somebody.terminal, termios.TCSANOW, before)  # as a shell does with a stopped job
        somebody.resizes(70, 20)
        somebody.process.send_signal(signal.SIGCONT)
        await only(gateway).until(lambda: only(gateway).sizes[-1] == (70, 20))

        assert somebody.is_raw()
        somebody.types(b"q")
        assert await somebody.ends() == 5
        assert somebody.modes() == before


async def test_closing_the_window_leaves_the_command_running(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async with person.at_terminal(gateway, "exec", "-t", machine, "vim") as somebody:
        await somebody.sees(b"$ ")
        somebody.closes()
        code = await somebody.ends()

    assert code == 129
    assert (only(gateway).end_of, only(gateway).signals) == (None, [])
    assert not only(gateway).is_stdin_closed


async def test_while_the_link_is_cut_ctrl_c_leaves(gateway: fake_gateway.FakeGateway, machine: str) -> None:
    async with person.at_terminal(gateway, "exec", "-t", "--id", "far", machine, "vim") as somebody:
        before = somebody.modes()
        await somebody.sees(b"$ ")
        await gateway.stop()
        await somebody.sees(b"\r\npaddock: the link was cut; trying to get it back, nothing is lost\r\n")
        somebody.types(b"\x03")
        code = await somebody.ends()

        assert code == 130
        assert somebody.modes() == before
        assert somebody.seen.endswith(f"come back with: paddock attach {machine} far\r\n".encode())


async def test_ctrl_c_during_a_short_cut_is_the_command_s(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async with person.at_terminal(gateway, "exec", "-t", machine, "vim") as somebody:
        await somebody.sees(b"$ ")
        await gateway.stop()
        somebody.types(b"\x03")
        await gateway.start()
        await somebody.sees(b"\x03")
        somebody.types(b"q")

        assert await somebody.ends() == 5
    assert bytes(only(gateway).stdin) == b"\x03q"
    assert b"paddock" not in somebody.seen


async def test_where_no_key_reaches_the_command_any_more_ctrl_c_leaves(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.troubles["machine.execWrite"].extend([errors.KeeperLost()] * 4)
    async with person.at_terminal(gateway, "exec", "-t", machine, "vim") as somebody:
        await somebody.sees(b"$ ")
        somebody.types(b"x")
        await somebody.sees(b"paddock: What keeps commands in the machine cannot be reached")
        somebody.types(b"\x03")

        assert await somebody.ends() == 130


async def test_who_waits_for_a_command_that_ignores_ctrl_c_is_told_what_to_do(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async with person.at_terminal(gateway, "exec", machine, "make") as somebody:
        await somebody.sees(b"$ ")
        somebody.types(b"\x03")
        await somebody.sees(b"paddock: it goes on; Ctrl-C twice within 2 s sends it SIGTERM")
        only(gateway).end(0)

        assert await somebody.ends() == 0


async def test_a_link_that_is_back_goes_on_with_nothing_lost_and_nothing_twice(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async with person.at_terminal(gateway, "exec", "-t", machine, "vim") as somebody:
        await somebody.sees(b"$ ")
        await gateway.stop()
        await somebody.sees(b"the link was cut")
        somebody.types(b"abc")
        only(gateway).say(b"meanwhile")
        await gateway.start()
        await somebody.sees(b"the link is back\r\n")
        await somebody.sees(b"ABC")
        somebody.types(b"q")
        await somebody.ends()

    assert bytes(only(gateway).stdin) == b"abcq"
    assert (somebody.seen.count(b"meanwhile"), somebody.seen.count(b"ABC")) == (1, 1)


async def test_ctrl_c_is_a_signal_where_the_terminal_stays_ours(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async with person.at_terminal(gateway, "exec", "-i", machine, "cat") as somebody:
        await somebody.sees(b"$ ")
        assert not somebody.is_raw()
        only(gateway).on_signal = lambda name: only(gateway).end(None, signal="SIGINT")
        somebody.types(b"\x03")

        assert await somebody.ends() == 130
    assert only(gateway).signals == ["INT"]


async def test_ctrl_d_is_the_end_of_standard_input_where_the_terminal_stays_ours(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async with person.at_terminal(gateway, "exec", "-i", machine, "cat") as somebody:
        await somebody.sees(b"$ ")
        somebody.types(b"one\n\x04")
        await only(gateway).until(lambda: only(gateway).is_stdin_closed)
        only(gateway).end(0)

        assert await somebody.ends() == 0
    assert bytes(only(gateway).stdin) == b"one\n"


async def test_only_our_input_need_be_a_terminal(gateway: fake_gateway.FakeGateway, machine: str) -> None:
    reading, writing = os.pipe()
    async with person.at_terminal(gateway, "exec", "-t", machine, "vim", stdout=writing) as somebody:
        os.close(writing)
        assert await asyncio.to_thread(os.read, reading, 10) == b"$ "
        somebody.types(b"q")

        assert await somebody.ends() == 5
    os.close(reading)


async def test_a_shell_is_a_login_shell_on_our_terminal(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async with person.at_terminal(gateway, "shell", "--user", "app", machine) as somebody:
        await somebody.sees(b"$ ")
        somebody.types(b"q")

        assert await somebody.ends() == 5
    asked = only(gateway).asked
    assert (asked.pty, asked.user, asked.cwd) == (True, "app", "~")
    assert asked.command == ["/bin/sh", "-c", shell.SHELL]


async def test_somebody_comes_back_to_a_terminal_and_takes_it_over(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async with person.at_terminal(gateway, "exec", "-t", "--id", "t1", machine, "vim") as somebody:
        await somebody.sees(b"$ ")
        somebody.types(b"one")
        await somebody.sees(b"ONE")
        somebody.closes()
        await somebody.ends()
    back = person.at_terminal(gateway, "attach", "-i", machine, "t1", columns=50, rows=10)
    async with back as somebody:
        await somebody.sees(b"$ ONE")
        await only(gateway).until(lambda: only(gateway).sizes[-1] == (50, 10))
        somebody.types(b"q")

        assert await somebody.ends() == 5
    assert bytes(only(gateway).stdin) == b"oneq"


async def test_who_looks_on_changes_nothing_and_leaves_by_ctrl_c(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async with person.at_terminal(gateway, "exec", "-t", "--id", "t1", machine, "vim") as owner:
        await owner.sees(b"$ ")
        async with person.at_terminal(gateway, "attach", machine, "t1", columns=50, rows=10) as viewer:
            await viewer.sees(b"$ ")
            assert not viewer.is_raw()
            viewer.types(b"\x03")

            assert await viewer.ends() == 130
        owner.types(b"q")
        assert await owner.ends() == 5
    assert (only(gateway).sizes[-1], only(gateway).signals) == ((100, 30), [])
