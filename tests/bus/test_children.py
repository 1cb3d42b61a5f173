"""Children of an event loop: their ends, their output, their groups; on asyncio and on uvloop."""

import asyncio
import os
import pathlib
import signal
import time

import pytest
import uvloop

from paddock.bus import children
from tests.support import processes

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_child_answers_its_exit_code_and_both_outputs(loop: str) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        done = runner.run(children.run(sh("echo out; echo err >&2; exit 7"), timeout_s=5))

    assert (done.exit_code, done.signal, done.timed_out) == (7, None, False)
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    assert (done.stdout_bytes, done.stdout_omitted_bytes, done.stderr_bytes) == (4, 0, 4)


@pytest.mark.parametrize("loop", LOOPS)
def test_many_children_at_once_each_get_their_own_answer(loop: str) -> None:
    async def many() -> list[bytes]:
        async with asyncio.TaskGroup() as tasks:
            runs = [tasks.create_task(children.run(["echo", str(n)], timeout_s=20)) for n in range(64)]
        return [run.result().stdout for run in runs]

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        answers = runner.run(many())

    assert answers == [f"{n}\n".encode() for n in range(64)]


async def test_a_child_ended_by_a_signal_has_no_exit_code() -> None:
    done = await children.run(sh("kill -TERM $$"), timeout_s=5)

    assert (done.exit_code, done.signal, done.timed_out) == (None, "SIGTERM", False)


async def test_a_timeout_kills_grandchildren_of_the_group_and_keeps_what_was_said() -> None:
    done = await children.run(sh("sleep 60 & echo $!; wait"), timeout_s=0.3)

    assert (done.exit_code, done.signal, done.timed_out) == (None, "SIGKILL", True)
    await processes.until(lambda: not processes.is_running(int(done.stdout)))
    assert done.took_ms < 1000


async def test_a_grandchild_that_holds_the_pipes_delays_the_answer_by_a_second_only() -> None:
    started = time.monotonic()
    done = await children.run(sh("sleep 60 & echo $!; exit 3"), timeout_s=30)
    took_s = time.monotonic() - started
    pid = int(done.stdout)
    lived_on = processes.is_running(pid)
    os.kill(pid, signal.SIGKILL)

    assert lived_on
    assert done.exit_code == 3
    assert 0.9 < took_s < 3


async def test_a_grandchild_that_talks_after_the_answer_is_not_killed_by_a_closed_pipe(
    tmp_path: pathlib.Path,
) -> None:
    go, said = tmp_path / "go", tmp_path / "said"
    os.mkfifo(go)
    done = await children.run(sh(f"(read x <{go}; echo more && echo alive >{said}) & exit 0"), timeout_s=30)
    go.write_text("\n")
    await processes.until(lambda: processes.first_line(said))

    assert done.exit_code == 0
    assert processes.first_line(said) == "alive"


async def test_output_over_the_limit_keeps_head_and_tail_and_counts_the_rest() -> None:
    script = "import sys; w = sys.stdout.write; w('a' * 600); w('b' * 3_000_000); w('c' * 600)"
    done = await children.run(["python3", "-c", script], timeout_s=20, limit_bytes=1000)

    assert done.stdout == b"a" * 500 + b"c" * 500
    assert (done.stdout_bytes, done.stdout_omitted_bytes) == (3_001_200, 3_000_200)


async def test_a_limit_never_cuts_a_character_in_two() -> None:
    done = await children.run(["printf", "€" * 100], timeout_s=5, limit_bytes=101)

    assert set(done.stdout.decode()) == {"€"}
    assert done.stdout_bytes == 300
    assert done.stdout_omitted_bytes == 300 - len(done.stdout)


async def test_output_of_exactly_the_limit_is_whole() -> None:
    done = await children.run(["printf", "x" * 1000], timeout_s=5, limit_bytes=1000)

    assert (done.stdout, done.stdout_omitted_bytes) == (b"x" * 1000, 0)


async def test_a_limit_of_nothing_counts_everything() -> None:
    done = await children.run(["printf", "hello"], timeout_s=5, limit_bytes=0)

    assert (done.stdout, done.stdout_bytes, done.stdout_omitted_bytes) == (b"", 5, 5)


async def test_a_megabyte_of_input_reaches_the_child() -> None:
    done = await children.run(["wc", "-c"], timeout_s=10, stdin=b"x" * 1_000_000)

    assert done.stdout.strip() == b"1000000"


async def test_a_child_that_never_reads_its_input_ends_all_the_same() -> None:
    done = await children.run(["true"], timeout_s=5, stdin=b"x" * 1_000_000)

    assert done.exit_code == 0


async def test_without_input_a_child_reads_nothing() -> None:
    done = await children.run(["cat"], timeout_s=5)

    assert (done.exit_code, done.stdout) == (0, b"")


async def test_a_child_leads_its_own_session_and_holds_none_of_our_files(tmp_path: pathlib.Path) -> None:
    with (tmp_path / "ours").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        done = await children.run(sh("ls /proc/$$/fd; cut -d' ' -f1,6 /proc/$$/stat"), timeout_s=5)
    *fds, pid, session = done.stdout.split()

    assert pid == session
    assert fds == [b"0", b"1", b"2"]


async def test_environment_and_folder_are_those_given(tmp_path: pathlib.Path) -> None:
    done = await children.run(sh("pwd; echo $A$HOME"), timeout_s=5, cwd=tmp_path, env={"A": "1"})

    assert done.stdout.decode() == f"{tmp_path}\n1\n"


@pytest.mark.parametrize(
    ("argv", "cwd", "failure", "filename"),
    [
        (["no-such-command"], None, FileNotFoundError, "no-such-command"),
        (["/etc/passwd"], None, PermissionError, "/etc/passwd"),
        (["true"], "/no/such/folder", FileNotFoundError, "/no/such/folder"),
        (["true"], "/etc/hostname", NotADirectoryError, "/etc/hostname"),
    ],
)
async def test_what_cannot_start_says_why_and_leaks_nothing(
    argv: list[str], cwd: str | None, failure: type[OSError], filename: str
) -> None:
    before = processes.open_fds()
    with pytest.raises(failure) as raised:
        await children.run(argv, timeout_s=5, cwd=cwd, stdin=b"input")

    assert raised.value.filename == filename
    assert processes.open_fds() == before


async def test_a_nul_byte_in_an_argument_is_refused() -> None:
    with pytest.raises(ValueError, match="null byte"):
        await children.run(["echo", "a\0b"], timeout_s=5)


async def test_cancelling_a_run_kills_and_reaps_its_group(tmp_path: pathlib.Path) -> None:
    pid_file = tmp_path / "pid"
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(children.run(sh(f"sleep 60 & echo $! >{pid_file}; wait"), timeout_s=60))
        await processes.until(lambda: processes.first_line(pid_file))
        run.cancel()

    assert run.cancelled()
    await processes.until(lambda: not processes.is_running(int(processes.first_line(pid_file))))


async def test_children_leave_no_file_descriptor_and_no_zombie() -> None:
    before = processes.open_fds()
    for _ in range(20):
        await children.run(["true"], timeout_s=5, stdin=b"x")

    assert processes.open_fds() == before
    assert not processes.has_children()


async def test_a_child_can_be_asked_about_before_its_end() -> None:
    child = children.start(["sleep", "60"])
    early = await child.wait(0.01)
    killed = child.kill()
    done = await child.wait(5)

    assert early is None
    assert killed
    assert done is not None
    assert (done.signal, done.timed_out) == ("SIGKILL", False)
    assert not child.kill()
