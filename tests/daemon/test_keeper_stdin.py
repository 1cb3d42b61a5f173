"""What is written to kept commands: through pipes, and typed into terminals."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator

import pytest

from tests.daemon import keeping
from tests.daemon import machine as machines

TERMINAL = {"columns": 80, "rows": 24}
PIPE_BYTES = 64 * 1024


@pytest.fixture
async def kept(machine: machines.Machine) -> AsyncIterator[keeping.Daemon]:
    async with keeping.keeping(machine, write_s=0.5) as daemon:
        yield daemon


async def test_without_stdin_it_is_empty_and_takes_nothing(kept: keeping.Daemon) -> None:
    await kept.shell("x1", "cat; sleep 60")
    refused = await kept.refused("write", "x1", b"x")

    assert refused["kind"] == "closed"


async def test_bytes_arrive_in_order_and_eof_ends_them(kept: keeping.Daemon) -> None:
    await kept.start("x1", "cat", stdin=True)
    said = [
        await kept.write("x1", b"one "),
        await kept.write("x1", b"two "),
        await kept.write("x1", b"", eof=True),
    ]
    end = await kept.end("x1")

    assert said == [(4, False), (8, False), (8, True)]
    assert kept.written("x1") == b"one two "
    assert end["stdinBytes"] == kept.record("x1").stdin_bytes == 8


async def test_what_was_taken_before_is_not_taken_twice(kept: keeping.Daemon) -> None:
    await kept.start("x1", "cat", stdin=True)
    said = [
        await kept.write("x1", b"abcd", 0),
        await kept.write("x1", b"abcd", 0),
        await kept.write("x1", b"cdef", 2),
        await kept.write("x1", b"", 3),
        await kept.write("x1", b"gh", 6, eof=True),
    ]
    await kept.end("x1")

    assert [accepted for accepted, _ in said] == [4, 4, 6, 6, 8]
    assert kept.written("x1") == b"abcdefgh"


async def test_a_gap_is_refused_and_says_where_to_go_on(kept: keeping.Daemon) -> None:
    await kept.start("x1", "cat", stdin=True)
    await kept.write("x1", b"abcd")
    refused = await kept.refused("write", "x1", b"x", offset=5)

    assert refused == {"kind": "bad_offset", "sizeBytes": 4}


async def test_after_eof_a_repeated_write_is_answered_and_a_new_one_refused(kept: keeping.Daemon) -> None:
    await kept.shell("x1", "cat; sleep 60", stdin=True)
    first = await kept.write("x1", b"abcd", 0, eof=True)
    again = await kept.write("x1", b"abcd", 0, eof=True)
    appended = await kept.refused("write", "x1", b"x")
    beyond = await kept.refused("write", "x1", b"abcdx", offset=0, eof=True)

    assert first == again == (4, True)
    assert (appended["kind"], beyond["kind"]) == ("closed", "closed")


async def test_a_command_that_does_not_read_takes_what_the_pipe_holds(kept: keeping.Daemon) -> None:
    await kept.shell("x1", "read x; sleep 0.7; cat | wc -c", stdin=True)
    data = b"\n" + b"x" * (3 * PIPE_BYTES)
    began = time.monotonic()
    writing = asyncio.create_task(kept.write("x1", data, 0))
    others = []
    for number in range(5):
        asked = time.monotonic()
        await kept.shell(f"y{number}", "exit 0")
        await kept.end(f"y{number}")
        others.append(time.monotonic() - asked)
    accepted, closed = await writing
    took_s = time.monotonic() - began
    rest, _ = await kept.write("x1", data[accepted:], accepted, eof=True)
    await kept.end("x1")

    assert PIPE_BYTES <= accepted < len(data)
    assert not closed
    assert 0.4 < took_s < 5
    assert min(others) < 0.4
    assert rest == len(data)
    assert int(kept.written("x1")) == 3 * PIPE_BYTES


async def test_writes_wait_for_those_before_them(kept: keeping.Daemon) -> None:
    await kept.shell("x1", "sleep 0.2; cat | cksum", stdin=True)
    parts = [bytes([number]) * (PIPE_BYTES // 2) for number in range(10)]
    async with asyncio.TaskGroup() as tasks:
        for number, part in enumerate(parts):
            tasks.create_task(kept.write("x1", part, number * len(part), eof=number == len(parts) - 1))
    end = await kept.end("x1")

    assert end["stdinBytes"] == sum(map(len, parts))
    assert kept.written("x1").split() == [*_cksum(b"".join(parts))]


async def test_a_reader_that_closes_its_stdin_is_told_of_at_once(kept: keeping.Daemon) -> None:
    await kept.shell("x1", "sleep 0.2; exec 0<&-; sleep 60", stdin=True)
    accepted, closed = await kept.write("x1", b"x" * (3 * PIPE_BYTES))
    refused = await kept.refused("write", "x1", b"x")

    assert (accepted, closed) == (PIPE_BYTES, True)
    assert refused["kind"] == "closed"


async def test_a_leader_that_ends_answers_the_writes_that_wait(kept: keeping.Daemon) -> None:
    await kept.shell("x1", "sleep 0.2", stdin=True)
    accepted, closed = await kept.write("x1", b"x" * (3 * PIPE_BYTES))
    end = await kept.end("x1")

    assert (accepted, closed) == (PIPE_BYTES, True)
    assert end["stdinBytes"] == PIPE_BYTES


async def test_a_terminal_is_the_commands_own(kept: keeping.Daemon) -> None:
    script = "echo said > /dev/tty; test -t 0 && test -t 1 && test -t 2 && echo three; stty size; stty -a | grep -o ' iutf8'"
    await kept.shell("x1", script, pty={"columns": 132, "rows": 43})
    end = await kept.end("x1")

    assert kept.written("x1") == b"said\r\nthree\r\n43 132\r\n iutf8\r\n"
    assert (end["exitCode"], end["stderrBytes"]) == (0, 0)
    assert kept.record("x1").pty


async def test_a_new_size_is_told_to_the_foreground(kept: keeping.Daemon) -> None:
    script = "trap 'stty size; exit' WINCH; echo up; while :; do sleep 0.01; done"
    await kept.shell("x1", script, pty=TERMINAL)
    await kept.ask("watch", "x1")
    await kept.until_grown("x1", b"up")
    await kept.ask("resize", "x1", columns=100, rows=50)
    await kept.end("x1")

    assert kept.written("x1") == b"up\r\n50 100\r\n"


async def test_pipes_have_no_size(kept: keeping.Daemon) -> None:
    await kept.start("x1", "sleep", "60")
    refused = await kept.refused("resize", "x1", columns=100, rows=50)

    assert refused["kind"] == "no_terminal"


@pytest.mark.parametrize("typed", [b"", b"line\n", b"half a line"])
async def test_eof_of_a_terminal_is_its_character(kept: keeping.Daemon, typed: bytes) -> None:
    await kept.shell("x1", "stty -echo; echo up; cat; echo over", pty=TERMINAL)
    await kept.ask("watch", "x1")
    await kept.until_grown("x1", b"up")
    said = await kept.write("x1", typed, 0, eof=True)
    await kept.end("x1")

    assert said == (len(typed), False)
    assert kept.written("x1") == b"up\r\n" + typed.replace(b"\n", b"\r\n") + b"over\r\n"


async def test_a_repeated_eof_is_not_typed_twice(kept: keeping.Daemon) -> None:
    await kept.shell("x1", "stty -echo; echo up; cat; echo over; cat; echo end", pty=TERMINAL)
    await kept.ask("watch", "x1")
    await kept.until_grown("x1", b"up")
    await kept.write("x1", b"a\n", 0, eof=True)
    await kept.until_grown("x1", b"over")
    again = await kept.write("x1", b"a\n", 0, eof=True)
    await kept.write("x1", b"b\n", 2, eof=True)
    await kept.end("x1")

    assert again == (2, False)
    assert kept.written("x1") == b"up\r\na\r\nover\r\nb\r\nend\r\n"


async def test_ctrl_c_in_a_terminal_interrupts_the_foreground(kept: keeping.Daemon) -> None:
    await kept.shell(
        "x1", "trap 'echo caught; exit 7' INT; echo up; while :; do sleep 0.01; done", pty=TERMINAL
    )
    await kept.ask("watch", "x1")
    await kept.until_grown("x1", b"up")
    await kept.write("x1", b"\x03")
    end = await kept.end("x1")

    assert end["exitCode"] == 7
    assert b"caught" in kept.written("x1")


async def test_the_last_words_in_a_terminal_are_kept(kept: keeping.Daemon) -> None:
    for number in range(10):
        await kept.shell(f"x{number}", "seq 1 5000", pty=TERMINAL)
    expected = b"".join(b"%d\r\n" % number for number in range(1, 5001))
    sizes = [(await kept.end(f"x{number}"))["stdoutBytes"] for number in range(10)]

    assert sizes == [len(expected)] * 10
    assert all(kept.written(f"x{number}") == expected for number in range(10))


async def test_a_terminal_that_its_command_closed_can_be_opened_again(kept: keeping.Daemon) -> None:
    script = "t=$(tty); exec 0<&- 1>&- 2>&-; sleep 0.2; exec 1> $t; echo back"
    await kept.shell("x1", script, pty=TERMINAL)
    await kept.end("x1")

    assert kept.written("x1") == b"back\r\n"


async def test_a_grandchild_that_holds_the_terminal_does_not_hold_the_end(kept: keeping.Daemon) -> None:
    began = time.monotonic()
    script = "trap '' HUP; (while [ ! -e go ]; do sleep 0.01; done) & echo up; exit 4"
    await kept.shell("x1", script, pty=TERMINAL, cwd=str(kept.folder))
    end = await kept.end("x1")
    took_s = time.monotonic() - began
    (kept.folder / "go").touch()

    assert (end["exitCode"], kept.written("x1")) == (4, b"up\r\n")
    assert took_s >= 0.5


async def test_much_typed_into_a_terminal_arrives_whole(kept: keeping.Daemon) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(20000))
    await kept.shell("x1", "stty -echo; echo up; head -n 20000 | cksum", pty=TERMINAL)
    await kept.ask("watch", "x1")
    await kept.until_grown("x1", b"up")
    at = 0
    while at < len(lines):
        at, _ = await kept.write("x1", lines[at : at + 128 * 1024], at)
    await kept.end("x1")

    assert kept.written("x1").split()[1:] == [*_cksum(lines)]


def _cksum(data: bytes) -> list[bytes]:
    """What `cksum` says of this."""
    return subprocess.run(["cksum"], input=data, capture_output=True, check=True).stdout.split()
