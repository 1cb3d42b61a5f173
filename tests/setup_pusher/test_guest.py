import asyncio
import pathlib
from collections.abc import Callable

import pytest

from paddock.contracts import errors
from paddock.setup_pusher import guest
from tests.setup_pusher import machine as machines
from tests.support import processes

View = Callable[..., guest.Guest]
APPEND = guest.Command("step-01", "d1", ("sh", "-c", "echo line >> ~/log"))
SLOW = guest.Command(
    "step-01", "d1", ("sh", "-c", "echo line >> ~/log; while [ ! -e ~/go ]; do sleep 0.01; done")
)


def log_of(machine: machines.Machine) -> str:
    path = machine.home / "log"
    return path.read_text() if path.exists() else ""


async def test_a_command_is_named_by_generation_step_digest_and_run(
    machine: machines.Machine, view: View
) -> None:
    async with machine.booted(generation=2):
        await view(run=3, generation=2).run_once(APPEND)

    assert machine.call_ids == ["2-step-01-d1-3"]
    assert machine.killed == ["2-step-01-d1-2"]


async def test_a_line_is_appended_once_however_often_the_work_is_taken_over(
    machine: machines.Machine, view: View
) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for _ in range(3):
            begun = tasks.create_task(view().run_once(SLOW))
            await processes.until(lambda: log_of(machine))
            begun.cancel()
        last = tasks.create_task(view().run_once(SLOW))
        (machine.home / "go").touch()

    assert last.result().exit_code == 0
    assert (log_of(machine), machine.killed) == ("line\n", [])


async def test_an_answer_that_was_left_is_given_again(machine: machines.Machine, view: View) -> None:
    first = await view().run_once(APPEND)
    second = await view().run_once(APPEND)

    assert first == second
    assert log_of(machine) == "line\n"


async def test_a_new_run_kills_what_the_last_left_before_it_begins(
    machine: machines.Machine, view: View, tmp_path: pathlib.Path
) -> None:
    command = guest.Command("s", "d", ("sh", "-c", "echo $$ >> ~/log; [ -e ~/go ] || sleep 60"))
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        begun = tasks.create_task(view(run=1).run_once(command))
        await processes.until(lambda: log_of(machine))
        begun.cancel()
    (machine.home / "go").touch()

    await view(run=2).run_once(command)

    first, second = log_of(machine).split()
    await processes.until(lambda: not processes.is_running(int(first)))
    assert first != second


async def test_a_command_that_failed_leaves_nothing_in_its_process_group(
    machine: machines.Machine, view: View
) -> None:
    result = await view().run_once(guest.Command("s", "d", ("sh", "-c", "exit 7")))

    assert (result.exit_code, machine.killed) == (7, ["1-s-d-1"])


@pytest.mark.parametrize(
    "fault", [errors.MachineOffline, errors.BusDown, errors.NoAnswer, errors.TooManyInFlight]
)
async def test_a_machine_that_is_away_for_a_moment_is_asked_again_under_the_same_name(
    machine: machines.Machine, view: View, fault: type[errors.Fault]
) -> None:
    machine.faults = [fault(), fault()]

    await view().run_once(APPEND)

    assert (machine.call_ids, log_of(machine)) == (["1-step-01-d1-1"], "line\n")


async def test_a_machine_that_stays_away_is_given_up_after_our_patience(
    machine: machines.Machine, view: View
) -> None:
    machine.faults = [errors.MachineOffline() for _ in range(100)]

    with pytest.raises(errors.MachineOffline):
        await view(patience_s=0.2).look_at("~/x")

    assert 2 <= 100 - len(machine.faults) < 20


async def test_a_refusal_is_not_asked_again(machine: machines.Machine, view: View) -> None:
    machine.faults = [errors.DiskFull(), errors.DiskFull()]

    with pytest.raises(errors.DiskFull):
        await view().write_file("~/x", "", mode=0o600)

    assert len(machine.faults) == 1


async def test_a_file_is_looked_at_without_its_content(machine: machines.Machine, view: View) -> None:
    await view().write_file("~/a/b", "hello", mode=0o640)

    seen = await view().look_at("~/a/b")

    assert seen is not None
    assert (seen.size, seen.mode, seen.content) == (5, 0o640, "")
    assert await view().look_at("~/a/none") is None


async def test_the_same_content_is_written_as_often_as_asked(machine: machines.Machine, view: View) -> None:
    """Named by its content, a write would be answered from the journal when the file had been A, then B, then A again."""
    for content in ("A", "B", "A"):
        await view().write_file("~/x", content, mode=0o600)

    assert (machine.home / "x").read_text() == "A"


def test_a_command_prints_without_its_environment() -> None:
    assert "sesame" not in repr(guest.Command("s", "d", ("true",), env={"KEY": "sesame"}))
