"""The supervisor: restarts, reaps, and takes everything with it. Its daemon here is a shell script."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from paddock.contracts import daemon
from paddock.daemon import __main__ as paddockd
from paddock.daemon import supervise
from tests.daemon import machine as machines
from tests.support import processes

SUPERVISE = "import sys; from paddock.daemon import supervise; sys.exit(supervise.main({0!r}, {1!r}, {2}))"
ORPHANS = """
import os, sys
for _ in range(1000):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
print("orphaned", flush=True)
os.execv("/bin/sleep", ["sleep", "60"])
"""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def supervised(machine: machines.Machine) -> Start:
    """Start a supervisor whose daemon is this shell script, run in the machine's folder."""

    def start(script: str, *, grace_s: float = 5, sandbox: str = "m1-1") -> "subprocess.Popen[bytes]":
        command = ["/bin/sh", "-c", f"cd {machine.folder}; {script}"]
        rest = f"sandbox={sandbox!r}, grace_s={grace_s}"
        return machine.start_python("-c", SUPERVISE.format(str(machine.folder), command, rest))

    return start


def test_exit_codes_are_those_of_the_contract() -> None:
    ours = (supervise.EXIT_STOP, supervise.EXIT_RESTART)

    assert ours == (daemon.EXIT_STOP, daemon.EXIT_RESTART)


def test_it_imports_next_to_nothing() -> None:
    """It is in memory for as long as the machine; the budget is a few MiB."""
    before = "import sys; before = set(sys.modules); "
    script = before + "from paddock.daemon import supervise; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    heavy = {
        "asyncio",
        "msgspec",
        "nats",
        "json",
        "re",
        "subprocess",
        "pathlib",
        "logging",
        "ctypes",
        "typing",
    }

    assert "paddock.daemon.supervise" in done.stdout.split()
    assert heavy.isdisjoint(done.stdout.split())


async def test_exit_code_0_of_the_daemon_ends_the_sandbox(
    machine: machines.Machine, supervised: Start
) -> None:
    supervisor = supervised("echo begun >> lives; exit 0")
    code = await machines.ended(supervisor)

    assert code == 0
    assert (machine.folder / "lives").read_text() == "begun\n"
    assert json.loads((machine.folder / "exit.json").read_text()) == {
        "sandboxId": "m1-1",
        "reason": "the daemon said that this sandbox is over",
    }


async def test_exit_code_75_starts_the_daemon_again_at_once(
    machine: machines.Machine, supervised: Start
) -> None:
    began = time.monotonic()
    supervisor = supervised("echo x >> lives; [ $(wc -l < lives) -gt 4 ] && exit 0; exit 75")
    code = await machines.ended(supervisor)

    assert code == 0
    assert len((machine.folder / "lives").read_text().splitlines()) == 5
    assert time.monotonic() - began < 2
    assert all("in 0.00 s" in line["detail"] for line in machine.log_lines("daemon_ended"))


async def test_crashes_are_followed_by_growing_pauses_and_told_to_the_next_daemon(
    machine: machines.Machine, supervised: Start
) -> None:
    supervisor = supervised(
        'echo "$PADDOCK_LAST_EXIT" >> lives; n=$(wc -l < lives)\n'
        "[ $n = 1 ] && exit 3; [ $n = 2 ] && kill -9 $$; [ $n = 3 ] && exit 4; exit 0"
    )
    code = await machines.ended(supervisor)
    pauses = [
        float(line["detail"].rpartition(" in ")[2].split()[0]) for line in machine.log_lines("daemon_ended")
    ]

    assert code == 0
    assert (machine.folder / "lives").read_text().splitlines() == [
        "",
        "exit code 3",
        "killed by SIGKILL",
        "exit code 4",
    ]
    assert 0.05 <= pauses[0] <= 0.1 <= pauses[1] <= 0.2 <= pauses[2] <= 0.4


async def test_a_daemon_that_cannot_be_started_is_tried_again(machine: machines.Machine) -> None:
    rest = "sandbox='m1-1'"
    script = SUPERVISE.format(str(machine.folder), ["/no/such/daemon"], rest)
    supervisor = machine.start_python("-c", script)
    await machine.until_logged("cannot_start_daemon", 3)
    supervisor.terminate()

    assert await machines.ended(supervisor) == 0


async def test_sigterm_gives_the_daemon_its_grace_and_then_kills_all(
    machine: machines.Machine, supervised: Start
) -> None:
    supervisor = supervised(
        "trap 'echo asked > asked; exit 75' TERM\n"
        "setsid sh -c 'setsid sleep 60 & echo $! > far; wait' & echo $$ > near; while :; do sleep 0.01; done"
    )
    await processes.until(lambda: processes.first_line(machine.folder / "far"))
    await processes.until(lambda: processes.first_line(machine.folder / "near"))
    far = int(processes.first_line(machine.folder / "far"))
    supervisor.terminate()
    code = await machines.ended(supervisor)

    assert code == 0
    assert processes.first_line(machine.folder / "asked") == "asked"
    assert not processes.is_running(far)
    assert "SIGTERM" in (machine.folder / "exit.json").read_text()


async def test_a_daemon_that_ignores_sigterm_is_killed_after_the_grace(
    machine: machines.Machine, supervised: Start
) -> None:
    supervisor = supervised("trap '' TERM; echo $$ > near; while :; do sleep 0.01; done", grace_s=0.3)
    await processes.until(lambda: processes.first_line(machine.folder / "near"))
    supervisor.terminate()
    code = await machines.ended(supervisor)

    assert code == 0
    assert not processes.is_running(int(processes.first_line(machine.folder / "near")))


async def test_a_thousand_orphans_leave_no_zombie(machine: machines.Machine, supervised: Start) -> None:
    supervisor = supervised(f"exec {sys.executable} -c '{ORPHANS}'")
    await processes.until(lambda: "orphaned" in machine.log_path.read_text(), timeout_s=30)
    await processes.until(lambda: machines.zombies_of(supervisor.pid) == 0)
    supervisor.terminate()

    assert await machines.ended(supervisor) == 0


async def test_what_the_daemon_started_outlives_the_daemon(
    machine: machines.Machine, supervised: Start
) -> None:
    supervisor = supervised(
        "[ -e first ] && exec sleep 60; echo $$ > first; sleep 60 & echo $! > child; wait"
    )
    await processes.until(lambda: processes.first_line(machine.folder / "child"))
    child = int(processes.first_line(machine.folder / "child"))
    os.kill(int(processes.first_line(machine.folder / "first")), signal.SIGKILL)
    await machine.until_logged("daemon_ended")

    assert processes.is_running(child)
    supervisor.terminate()
    assert await machines.ended(supervisor) == 0
    assert not processes.is_running(child)


async def test_two_supervisors_never_share_a_home(machine: machines.Machine, supervised: Start) -> None:
    """Whatever stands in the lock file: only the kernel's lock counts."""
    (machine.folder / "supervise.lock").write_text("garbage")
    first = supervised("echo $$ > near; exec sleep 60")
    await processes.until(lambda: processes.first_line(machine.folder / "near"))
    second = supervised("echo twice > twice; exit 0")
    code = await machines.ended(second)

    assert code == supervise.EXIT_TAKEN
    assert f"process {first.pid} holds it" in machine.log_lines("cannot_supervise")[0]["detail"]
    assert not (machine.folder / "twice").exists()


async def test_a_home_is_free_again_when_its_supervisor_was_killed(
    machine: machines.Machine, supervised: Start
) -> None:
    first = supervised("echo $$ > near; exec sleep 60")
    await processes.until(lambda: processes.first_line(machine.folder / "near"))
    orphan = int(processes.first_line(machine.folder / "near"))
    first.kill()
    first.wait()
    second = supervised("exit 0")
    code = await machines.ended(second)
    os.kill(orphan, signal.SIGKILL)

    assert code == 0


async def test_as_pid_1_it_reaps_and_takes_the_namespace_with_it(machine: machines.Machine) -> None:
    script = (
        "sh -c 'sleep 0.01 & sleep 60 &'; [ -e /proc/1/stat ] && cat /proc/1/comm; echo $$; exec sleep 60"
    )
    python = SUPERVISE.format(str(machine.folder), ["/bin/sh", "-c", script], "sandbox='m1-1'")
    outer = machine.start_python("-c", python, within=machines.in_namespaces())
    await processes.until(lambda: "\n2\n" in machine.log_path.read_text())
    inner = machines.descendants(outer.pid)[0]
    below = machines.descendants(inner)
    await processes.until(lambda: machines.zombies_of(inner) == 0)
    os.kill(inner, signal.SIGTERM)
    await machines.ended(outer)

    assert len(below) >= 2
    assert not any(processes.is_running(pid) for pid in below)
    assert json.loads((machine.folder / "exit.json").read_text())["reason"] == "asked to stop by SIGTERM"


def test_the_daemon_is_started_without_modules_of_the_working_directory() -> None:
    assert paddockd.RUN[1] in {"-P", "-I"}
    assert pathlib.Path(paddockd.RUN[0]).is_absolute()
