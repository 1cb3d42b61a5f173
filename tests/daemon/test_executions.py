"""The index of commands: what a daemon finds at its start, what it keeps and what it forgets."""

import asyncio
import contextlib
import os
import pathlib
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from paddock.bus import clock
from paddock.contracts import errors
from paddock.daemon import exec_answer, exec_book, exec_output, exec_record, exec_shelf, executions
from paddock.daemon import processes as known
from tests.support import processes

KEPT_S = 3600.0


class Machine:
    """A folder, a clock, and one index after the other over them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.shelf = folder / "exec"
        self.clock = clock.ManualClock()

    @contextlib.asynccontextmanager
    async def index(self) -> AsyncIterator[executions.Index]:
        """An index that has taken over what is there; ends with the block, as a daemon does."""
        made = executions.Index(self.folder, dict(os.environ), self.clock, kept_s=KEPT_S)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(made.run(stop))
            await made.until_ready()
            try:
                yield made
            finally:
                stop.set()
        await made.close()

    def accept(
        self,
        exec_id: str,
        *lines: Mapping[str, object],
        namespace: str = "",
        command: Sequence[str] = ("x",),
    ) -> None:
        """A record as a keeper leaves it."""
        (self.shelf / exec_id).mkdir(parents=True, mode=0o700)
        folder = os.open(self.shelf / exec_id, os.O_RDONLY | os.O_DIRECTORY)
        accepted: dict[str, object] = {
            "id": exec_id, "digest": "d", "command": list(command), "pty": False, "stdin": False,
            "beganAtMs": self.clock.now_ms(),
            "limitBytes": 1 << 20, "segmentBytes": 1 << 16, "namespace": namespace or known.namespace(), "timeoutS": None,
        }  # fmt: skip
        record = exec_record.create(folder, accepted)
        for line in lines:
            exec_record.append(record, dict(line))
        os.close(record)
        os.close(folder)

    def end_keeper(self) -> None:
        lock = self.folder / "keeper.lock"
        if lock.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(lock.read_text()), signal.SIGTERM)


@pytest.fixture
async def machine(tmp_path: pathlib.Path) -> AsyncIterator[Machine]:
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        made.end_keeper()


def sleeping() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "60"], start_new_session=True)


def order(*command: str, **more: Any) -> dict[str, object]:
    return {
        "argv": list(command), "env": {"PATH": os.environ["PATH"]}, "cwd": "/", "uid": None, "gid": None, "groups": None,
        "pty": None, "stdin": False, "timeoutS": None, "limitBytes": 1 << 20, **more,
    }  # fmt: skip


def started(pid: int, ticks: int) -> Mapping[str, object]:
    return {"is": "started", "pid": pid, "ticks": ticks}


def ended(at_ms: int, code: int = 0) -> Mapping[str, object]:
    return {
        "is": "ended", "exitCode": code, "signal": None, "timedOut": False, "endedAtMs": at_ms, "stdoutBytes": 0,
        "stderrBytes": 0, "stdinBytes": 0,
    }  # fmt: skip


def state(index: executions.Index, exec_id: str) -> str:
    return exec_answer.state(index.book.record(exec_id))


async def test_a_command_is_started_once_and_found_again(machine: Machine) -> None:
    async with machine.index() as index:
        first = await index.start("c1", "d1", lambda: order("sleep", "60"))
        again = await index.start("c1", "d1", lambda: pytest.fail("it was asked for twice"))
        with pytest.raises(errors.Conflict) as raised:
            await index.start("c1", "d2", lambda: order("true"))
    async with machine.index() as index:
        adopted = index.book.record("c1")
        live = index.book.live("c1")
        await index.keeper.ask({"do": "signal", "id": "c1", "number": 9})
        await index.book.until_over("c1", 5)
        at_last = index.book.record("c1")

    assert first is again
    assert raised.value.data == {"id": "c1"}
    assert (adopted.pid, adopted.ticks) == (first.pid, first.ticks)
    assert live is not None
    assert (at_last.signal, at_last.is_lost) == ("SIGKILL", False)


async def test_a_start_that_cannot_be_prepared_leaves_the_id_free(machine: Machine) -> None:
    def refuse() -> dict[str, object]:
        raise errors.BadPath("cannot use this path")

    async with machine.index() as index:
        for _ in range(2):
            with pytest.raises(errors.BadPath):
                await index.start("c1", "d1", refuse)
        record = await index.start("c1", "d1", lambda: order("true"))

    assert record.pid > 0


async def test_what_lives_without_a_keeper_is_watched_and_lost_at_its_end(machine: Machine) -> None:
    with sleeping() as process:
        machine.accept("c1", started(process.pid, known.start_ticks(process.pid)))
        async with machine.index() as index:
            before = state(index, "c1")
            process.kill()
            await index.book.until_over("c1", 5)
            after = index.book.record("c1")
    async with machine.index() as index:
        later = index.book.record("c1")

    assert before == "running"
    assert (after.is_lost, after.exit_code, after.signal) == (True, None, None)
    assert after.ended_at_ms == machine.clock.now_ms()
    assert later.is_lost


async def test_nobody_is_taken_for_a_command_that_is_gone(machine: Machine) -> None:
    """Its number belongs to another by now, or means nothing in this life of the host."""
    with sleeping() as process:
        ticks = known.start_ticks(process.pid)
        machine.accept("reused", started(process.pid, ticks - 1))
        machine.accept("elsewhere", started(process.pid, ticks), namespace="another boot/1")
        machine.accept("gone", started(2**22 - 3, 12345))
        machine.accept("perhaps")
        async with machine.index() as index:
            states = {one: state(index, one) for one in ("reused", "elsewhere", "gone", "perhaps")}
            live = index.book.all_live()
        alive = processes.is_running(process.pid)
        process.kill()

    assert states == {"reused": "ended", "elsewhere": "ended", "gone": "ended", "perhaps": "unknown"}
    assert live == []
    assert alive


async def test_ended_commands_are_forgotten_when_they_are_old(machine: Machine) -> None:
    now_ms = machine.clock.now_ms()
    machine.accept("old", started(1, 1), ended(now_ms))
    machine.accept("failed", {"is": "failed", "what": "command", "errno": 2, "endedAtMs": now_ms})
    machine.accept("late", started(1, 1), ended(now_ms + 1000))
    machine.clock.advance(KEPT_S + 0.5)
    machine.accept("new", started(1, 1), ended(machine.clock.now_ms()))
    async with machine.index() as index:
        await index.book.compact()
        for gone in ("old", "failed"):
            with pytest.raises(errors.NotFound):
                index.book.record(gone)
        left = list(index.book.newest())

    assert left == ["new", "late"]
    assert sorted(path.name for path in machine.shelf.iterdir()) == ["late", "new"]


async def test_what_runs_or_is_being_read_is_not_forgotten(machine: Machine) -> None:
    machine.accept("read", started(1, 1), ended(machine.clock.now_ms()))
    async with machine.index() as index:
        await index.start("runs", "d1", lambda: order("sleep", "60"))
        async with index.following("read", lambda: None) as live:
            machine.clock.advance(KEPT_S * 2)
            await index.book.compact()
            left = list(index.book.newest())
        await index.book.compact()

        assert live is None
        assert left == ["runs", "read"]
        assert list(index.book.newest()) == ["runs"]


async def test_what_is_left_of_a_removal_is_removed_and_junk_is_passed_over(machine: Machine) -> None:
    machine.accept("c1", started(1, 1), ended(machine.clock.now_ms()))
    machine.accept("c2", started(1, 1), ended(machine.clock.now_ms()))
    (machine.shelf / "c2").rename(machine.shelf / ".gone-c2")
    (machine.shelf / "empty").mkdir()
    (machine.shelf / "junk").mkdir()
    (machine.shelf / "junk/record.jsonl").write_bytes(b'\xff\xfe{"is":"acc')
    (machine.shelf / "file").write_text("text")
    (machine.shelf / "other").mkdir()
    (machine.shelf / "other/record.jsonl").write_bytes((machine.shelf / "c1/record.jsonl").read_bytes())
    async with machine.index() as index:
        found = list(index.book.newest())

    assert found == ["c1"]
    assert not (machine.shelf / ".gone-c2").exists()


async def test_a_removed_command_is_gone_at_once(machine: Machine) -> None:
    machine.accept("c1")
    exec_shelf.remove(machine.shelf, "c1")
    exec_shelf.remove(machine.shelf, "c1")

    assert list(machine.shelf.iterdir()) == []
    assert exec_shelf.read(machine.shelf, "c1") is None


async def test_a_viewer_is_told_though_the_one_before_it_left_while_asking(machine: Machine) -> None:
    async def follow(index: executions.Index) -> None:
        async with index.following("c1", lambda: None):
            await asyncio.sleep(60)

    async with machine.index() as index:
        await index.start("c1", "d1", lambda: order("sh", "-c", "echo kept; exec sleep 60"))
        await processes.until((machine.shelf / "c1/stdout.000000").exists)
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            first = tasks.create_task(follow(index))
            await asyncio.sleep(0)  # it has asked, and has no answer yet
            told = asyncio.Event()
            async with index.following("c1", told.set) as live:
                first.cancel()
                await told.wait()
                while live is not None and live.stdout < 5:
                    told.clear()
                    await told.wait()

    assert live is not None
    assert live.stdout == 5


async def test_the_pid_of_what_was_found_half_started_is_learnt(machine: Machine) -> None:
    machine.accept("c1")
    async with machine.index() as index:
        record = exec_shelf.read(machine.shelf, "c1")
        assert record is not None
        live = exec_book.Live(record)
        live.grow({"state": "starting", "pid": 7, "ticks": 8})
        before = record.pid
        live.grow({"state": "running", "pid": 7, "ticks": 8, "stdout": 3, "stderr": 4})
        said = state(index, "c1")

    assert (before, record.pid, record.ticks) == (0, 7, 8)
    assert (live.stdout, live.stderr) == (3, 4)
    assert said == "unknown"


async def test_nobody_waits_for_an_end_when_the_daemon_stops(machine: Machine) -> None:
    async with asyncio.timeout(5), machine.index() as index, asyncio.TaskGroup() as tasks:
        await index.start("c1", "d1", lambda: order("sleep", "60"))
        waiting = tasks.create_task(index.book.until_over("c1", 60))
        await asyncio.sleep(0)
        index.book.release_all()

    assert waiting.done()
    assert state(index, "c1") == "running"


async def test_pages_go_on_after_the_one_before(machine: Machine) -> None:
    for number in range(5):
        machine.accept(f"c{number}", started(1, 1), ended(machine.clock.now_ms()))
        machine.clock.advance(1)
    async with machine.index() as index:
        whole = list(index.book.newest())
        rest = list(index.book.newest("c2"))
        with pytest.raises(errors.NotFound):
            index.book.newest("never")

    assert whole == ["c4", "c3", "c2", "c1", "c0"]
    assert rest == ["c1", "c0"]


async def test_a_page_of_long_commands_is_a_short_page(machine: Machine) -> None:
    for number in range(5):
        machine.accept(f"c{number}", ended(0), command=["x" * 900_000])
    page = exec_output.page(machine.shelf, ["c4", "c3", "c2", "c1", "c0"], 10, {})
    rest = exec_output.page(machine.shelf, ["c1", "never", "c0"], 10, {})

    assert ([one.id for one in page.executions], page.is_last) == (["c4", "c3", "c2"], False)
    assert ([one.id for one in rest.executions], rest.is_last) == (["c1", "c0"], True)


async def test_records_that_cannot_be_read_do_not_keep_a_daemon_from_working(machine: Machine) -> None:
    machine.accept("c1", ended(machine.clock.now_ms()))
    (machine.shelf / "c2/record.jsonl").mkdir(parents=True)
    async with machine.index() as index:
        with pytest.raises(errors.IsADirectory, match="c2"):
            index.book.record("c2")
        known_ids = list(index.book.newest())

    assert known_ids == ["c1"]


async def test_a_machine_without_commands_starts_no_keeper(machine: Machine) -> None:
    machine.accept("c1", started(1, 1), ended(machine.clock.now_ms()))
    async with machine.index() as index:
        facts = await index.facts()

    assert facts == {}
    assert not (machine.folder / "keeper.lock").exists()


async def test_an_end_that_a_full_disk_kept_from_the_record_is_still_said(machine: Machine) -> None:
    """As the keeper tells it; its record has no end."""
    async with machine.index() as index:
        record = await index.start("c1", "d1", lambda: order("sleep", "60"))
        machine.accept("c2", started(record.pid, record.ticks))
        index.book.record("c2")
        live = index.book.live("c2")
        assert live is not None
        index.book.end(live, ended(machine.clock.now_ms(), 7))
        said = index.book.record("c2")

    assert (said.exit_code, index.book.live("c2")) == (7, None)
