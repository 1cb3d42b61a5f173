"""The scheduler, looked at with a clock that stands still until told."""

import asyncio
import os
import pathlib

import pytest

from paddock.bus import clock
from paddock.daemon import cron, environment
from tests.support import processes


class Cron:
    def __init__(self, home: pathlib.Path) -> None:
        self.home = home
        self.file = home / "crontab"
        self.clock = clock.ManualClock(1_750_000_040_000)  # 20 s past the minute, in every time zone
        surroundings = environment.Environment(dict(os.environ), home / ".env")
        self.scheduler = cron.Scheduler(self.file, surroundings, str(home), self.clock)

    def write(self, text: str) -> None:
        (self.home / "new").write_text(text)
        (self.home / "new").rename(self.file)

    def after(self, seconds: float) -> float:
        self.clock.advance(seconds)
        return self.scheduler.look()

    def lines(self) -> list[str]:
        path = self.home / "lines"
        return path.read_text().splitlines() if path.exists() else []

    async def until_lines(self, count: int) -> None:
        await processes.until(lambda: len(self.lines()) >= count)

    async def until_idle(self) -> None:
        await processes.until(lambda: not self.scheduler.running)


@pytest.fixture
async def machine_cron(home: pathlib.Path) -> Cron:
    return Cron(home)


async def test_a_job_runs_once_when_it_is_due(machine_cron: Cron) -> None:
    machine_cron.write("* * * * * echo x >> lines\n")
    pauses = [machine_cron.after(0), machine_cron.after(38), machine_cron.after(2), machine_cron.after(1)]
    await machine_cron.until_idle()
    machine_cron.after(59)
    await machine_cron.until_idle()

    assert pauses == [cron.LOOK_S, 2.0, cron.LOOK_S, cron.LOOK_S]
    assert machine_cron.lines() == ["x", "x"]


async def test_jobs_have_the_environment_of_commands(machine_cron: Cron) -> None:
    (machine_cron.home / ".env").write_text("FROM_FILE='a b'\n")
    machine_cron.write('OWN=1\n* * * * * echo "$FROM_FILE $OWN $PWD" >> lines\n')
    machine_cron.after(0)
    machine_cron.after(40)
    await machine_cron.until_lines(1)

    assert machine_cron.lines() == [f"a b 1 {machine_cron.home}"]


async def test_a_file_that_comes_changes_and_goes_is_noticed(machine_cron: Cron) -> None:
    machine_cron.after(0)
    machine_cron.write("* * * * * echo one >> lines\n")
    machine_cron.after(1)
    machine_cron.write("* * * * * echo two >> lines\n")
    machine_cron.after(1)
    machine_cron.after(38)
    await machine_cron.until_lines(1)
    machine_cron.file.unlink()
    machine_cron.after(60)
    machine_cron.write("* * * * * echo three >> lines\n")
    machine_cron.after(1)
    machine_cron.after(59)
    await machine_cron.until_lines(2)

    assert machine_cron.lines() == ["two", "three"]


async def test_a_job_still_running_is_passed_over(machine_cron: Cron) -> None:
    os.mkfifo(machine_cron.home / "gate")
    machine_cron.write("* * * * * echo x >> lines; read x < gate; echo end >> lines\n")
    machine_cron.after(0)
    machine_cron.after(40)
    await machine_cron.until_lines(1)
    machine_cron.after(60)
    machine_cron.after(60)
    await asyncio.to_thread((machine_cron.home / "gate").write_text, "\n")
    await machine_cron.until_lines(2)

    assert machine_cron.lines() == ["x", "end"]


async def test_what_was_missed_while_the_machine_slept_is_not_made_up(machine_cron: Cron) -> None:
    machine_cron.write("* * * * * echo x >> lines\n")
    machine_cron.after(0)
    machine_cron.after(3600)
    machine_cron.after(60)
    await machine_cron.until_lines(1)

    assert machine_cron.lines() == ["x"]


async def test_a_clock_set_back_does_not_silence_jobs(machine_cron: Cron) -> None:
    machine_cron.write("* * * * * echo x >> lines\n")
    machine_cron.after(0)
    machine_cron.clock.set_wall(machine_cron.clock.now_ms() - 86_400_000)
    machine_cron.after(0)
    machine_cron.after(60)
    await machine_cron.until_lines(1)

    assert machine_cron.lines() == ["x"]


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"nonsense\n"])
async def test_garbage_stops_nobody(machine_cron: Cron, content: bytes) -> None:
    machine_cron.file.write_bytes(content)

    assert machine_cron.after(0) == cron.LOOK_S


async def test_a_job_that_cannot_start_is_tried_again_next_time(machine_cron: Cron) -> None:
    (machine_cron.home / ".env").mkdir()
    machine_cron.write("* * * * * echo x >> lines\n")
    machine_cron.after(0)
    machine_cron.after(40)
    (machine_cron.home / ".env").rmdir()
    machine_cron.after(60)
    await machine_cron.until_lines(1)

    assert machine_cron.lines() == ["x"]


async def test_it_ends_when_told(machine_cron: Cron) -> None:
    stop = asyncio.Event()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(machine_cron.scheduler.run(stop))
        stop.set()

    assert running.done()
