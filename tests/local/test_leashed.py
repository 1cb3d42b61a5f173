"""Children of a stack: their end is seen, and none outlives its parent."""

import asyncio
import os
import pathlib
import signal
import subprocess
import sys

from paddock.local import leashed
from tests.support import processes

PARENT = """
import asyncio, pathlib, sys
from paddock.local import leashed
async def main():
    child = leashed.Leashed("sleeper", ["sleep", "600"], log_path=pathlib.Path(sys.argv[1]))
    print(child.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_child_dies_with_its_parent_even_by_kill_9(tmp_path: pathlib.Path) -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220 - a parent that is not us
        [sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        child = os.pidfd_open(pid)
        # The launcher asks for the kernel's signal before it becomes the command.
        await processes.until(lambda: pathlib.Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
        parent.kill()

    await ended(child)
    assert parent.returncode == -signal.SIGKILL


async def ended(pidfd: int) -> None:
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, gone.set)
    async with asyncio.timeout(5):
        await gone.wait()
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)


async def test_the_end_of_a_child_is_an_event_with_its_exit_code(tmp_path: pathlib.Path) -> None:
    child = leashed.Leashed("failing", ["sh", "-c", "echo why; exit 7"], log_path=tmp_path / "log")

    async with asyncio.timeout(5):
        await child.ended.wait()

    assert (child.exit_code, child.log_tail()) == (7, "why")
    child.send(signal.SIGTERM)  # to nobody


async def test_a_command_that_is_not_there_says_so_in_its_log(tmp_path: pathlib.Path) -> None:
    child = leashed.Leashed("missing", ["no-such-command-here"], log_path=tmp_path / "log")

    async with asyncio.timeout(5):
        await child.ended.wait()

    assert child.exit_code == 1
    assert child.log_tail() == "cannot start no-such-command-here: No such file or directory"


async def test_a_child_that_ignores_the_request_to_end_is_killed(tmp_path: pathlib.Path) -> None:
    child = leashed.Leashed(
        "stubborn",
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"],
        log_path=tmp_path / "log",
    )
    await processes.until(lambda: child.log_tail() == "ready")

    code = await child.stop(grace_s=0.05)

    assert code == -signal.SIGKILL


async def test_ctrl_c_in_the_terminal_does_not_reach_a_child(tmp_path: pathlib.Path) -> None:
    child = leashed.Leashed("sleeper", ["sleep", "600"], log_path=tmp_path / "log")

    group = os.getpgid(child.pid)

    assert group != os.getpgid(0)
    await child.kill()
