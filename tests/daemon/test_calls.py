"""Calls with a side effect happen once, in one daemon and over its death."""

import asyncio
import os
import pathlib
import subprocess

import msgspec
import pytest

from paddock.bus import clock, responder
from paddock.contracts import daemon, errors
from paddock.daemon import calls, environment, exec_command, journal, processes
from tests.support import processes as seen


def context(call_id: str, held_s: float = 5) -> responder.CallContext:
    return responder.CallContext(
        subject="rpc.m1-1.call",
        caller="prober-x",
        call_id=call_id,
        deadline_ms=0,
        traceparent="",
        request_id="r1",
        held_s=held_s,
    )


class Ledger:
    """Calls over a journal in a folder; another one over the same folder is the next daemon."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.journal = journal.Journal(folder / "journal", clock.SystemClock())
        self.journal.open()
        self.calls = calls.Calls(self.journal)
        self.calls.adopt()

    async def sh(self, call_id: str, script: str, *, held_s: float = 5) -> daemon.ExecCommandResult:
        params = daemon.ExecCommandParams(command=["sh", "-c", script], cwd=str(self.folder))
        answer = await self.calls.once(daemon.EXEC_COMMAND, params, context(call_id, held_s), self._begin)
        return msgspec.json.decode(answer, type=daemon.ExecCommandResult)

    def _begin(self, params: daemon.ExecCommandParams) -> calls.Work[daemon.ExecCommandResult]:
        surroundings = environment.Environment(dict(os.environ), self.folder / ".env")
        child = exec_command.start(params, surroundings, str(self.folder))
        return calls.Work(child.ended, lambda: exec_command.result(child.ended.result()), child)


@pytest.fixture
async def ledger(tmp_path: pathlib.Path) -> Ledger:
    return Ledger(tmp_path)


def lines(ledger: Ledger) -> int:
    path = ledger.folder / "lines"
    return len(path.read_text().splitlines()) if path.exists() else 0


def sleeping() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "60"], start_new_session=True)


async def test_a_repeated_call_gets_the_stored_answer(ledger: Ledger) -> None:
    first = await ledger.sh("c1", "echo x >> lines; echo out; exit 4")
    second = await ledger.sh("c1", "echo x >> lines; echo out; exit 4")

    assert first == second
    assert (first.exit_code, first.stdout) == (4, "out\n")
    assert lines(ledger) == 1


async def test_a_call_repeated_while_it_runs_attaches(ledger: Ledger) -> None:
    script = "echo x >> lines; sleep 0.2; echo $$"
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ledger.sh("c1", script)) for _ in range(10)]

    assert len({task.result().stdout for task in asked}) == 1
    assert lines(ledger) == 1


async def test_the_same_id_for_something_else_is_a_conflict(ledger: Ledger) -> None:
    await ledger.sh("c1", "true")
    with pytest.raises(errors.CallConflict):
        await ledger.sh("c1", "echo x >> lines")

    assert lines(ledger) == 0


@pytest.mark.parametrize("call_id", ["", "a b", "x" * 129, "../x"])
def test_a_call_without_a_usable_id_is_not_begun(tmp_path: pathlib.Path, call_id: str) -> None:
    async def ask() -> None:
        await Ledger(tmp_path).sh(call_id, "echo x >> lines")

    with pytest.raises(errors.InvalidParams, match="call id"):
        asyncio.run(ask())
    assert not (tmp_path / "lines").exists()


async def test_a_call_that_could_not_start_says_so_each_time(ledger: Ledger) -> None:
    def begin(_params: daemon.ExecCommandParams) -> calls.Work[daemon.ExecCommandResult]:
        raise errors.CommandNotFound("cannot run 'x'")

    params = daemon.ExecCommandParams(command=["x"])
    for _ in range(2):
        with pytest.raises(errors.CommandNotFound, match="cannot run 'x'"):
            await ledger.calls.once(daemon.EXEC_COMMAND, params, context("c1"), begin)

    assert ledger.calls.running == 0


async def test_a_long_call_goes_on_and_is_waited_for(ledger: Ledger) -> None:
    with pytest.raises(responder.StillRunning) as raised:
        await ledger.sh("c1", "sleep 0.3; echo end", held_s=0.05)
    with pytest.raises(responder.StillRunning):
        await ledger.calls.wait("c1", context("", 0.05))
    answer = await ledger.calls.wait("c1", context(""))

    assert raised.value.call_id == "c1"
    assert msgspec.json.decode(answer, type=daemon.ExecCommandResult).stdout == "end\n"


async def test_waiting_for_a_call_nobody_made_is_not_found(ledger: Ledger) -> None:
    with pytest.raises(errors.NotFound):
        await ledger.calls.wait("never", context(""))


async def test_whoever_gives_up_does_not_end_the_call(ledger: Ledger) -> None:
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(ledger.sh("c1", "sleep 0.2; echo x >> lines"))
        await seen.until(lambda: ledger.calls.running)
        asking.cancel()
    result = await ledger.sh("c1", "sleep 0.2; echo x >> lines")

    assert result.exit_code == 0
    assert lines(ledger) == 1


async def test_cancel_kills_the_whole_group_and_the_call_ends_by_the_signal(ledger: Ledger) -> None:
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(ledger.sh("c1", "sleep 60 & echo $! > pid; wait"))
        await seen.until(lambda: seen.first_line(ledger.folder / "pid"))
        was_running = ledger.calls.cancel("c1")
    pid = int(seen.first_line(ledger.folder / "pid"))
    await seen.until(lambda: not seen.is_running(pid))

    assert was_running
    assert (asking.result().signal, asking.result().exit_code) == ("SIGKILL", None)
    assert not ledger.calls.cancel("never")


async def test_cancel_after_the_end_kills_what_the_command_left(ledger: Ledger) -> None:
    """A failed setup step may leave a part of itself behind; it must not go on beside the next attempt."""
    result = await ledger.sh("c1", "sleep 60 >/dev/null 2>&1 & echo $!; exit 1")
    was_running = ledger.calls.cancel("c1")
    await seen.until(lambda: not seen.is_running(int(result.stdout)))

    assert was_running


async def test_a_call_whose_process_died_with_its_daemon_is_unknown_and_not_run_again(
    tmp_path: pathlib.Path,
) -> None:
    before = Ledger(tmp_path)
    params = daemon.ExecCommandParams(command=["sh", "-c", "echo x >> lines"], cwd=str(tmp_path))
    call = before.journal.begin("c1", "tool.execCommand", calls.digest(daemon.EXEC_COMMAND, params))
    before.journal.spawned(call, namespace=processes.namespace(), pid=2**22 - 3, ticks=12345)
    before.journal.begin("c2", "tool.execCommand", "d2")
    after = Ledger(tmp_path)
    for _ in range(2):
        with pytest.raises(errors.OutcomeUnknown):
            await after.sh("c1", "echo x >> lines")
        with pytest.raises(errors.OutcomeUnknown):
            await after.calls.wait("c2", context(""))

    assert lines(after) == 0
    assert Ledger(tmp_path).journal.unended() == []


async def test_a_call_that_outlives_its_daemon_is_waited_for_and_then_unknown(tmp_path: pathlib.Path) -> None:
    with sleeping() as process:
        before = Ledger(tmp_path)
        call = before.journal.begin("c1", "tool.execCommand", "d1")
        ticks = processes.start_ticks(process.pid)
        before.journal.spawned(call, namespace=processes.namespace(), pid=process.pid, ticks=ticks)
        after = Ledger(tmp_path)
        with pytest.raises(responder.StillRunning):
            await after.calls.wait("c1", context("", 0.05))
        was_running = after.calls.cancel("c1")
        with pytest.raises(errors.OutcomeUnknown):
            await after.calls.wait("c1", context(""))

    assert was_running


async def test_a_timeout_still_holds_after_the_daemon_that_set_it_is_gone(tmp_path: pathlib.Path) -> None:
    with sleeping() as process:
        before = Ledger(tmp_path)
        call = before.journal.begin("c1", "tool.execCommand", "d1")
        ticks = processes.start_ticks(process.pid)
        here = processes.namespace()
        before.journal.spawned(call, namespace=here, pid=process.pid, ticks=ticks, timeout_s=0.2)
        after = Ledger(tmp_path)
        with pytest.raises(errors.OutcomeUnknown):
            await after.calls.wait("c1", context(""))
        code = process.wait()

    assert code == -9


async def test_a_process_of_another_sandbox_with_the_same_number_is_left_alone(
    tmp_path: pathlib.Path,
) -> None:
    with sleeping() as process:
        before = Ledger(tmp_path)
        ticks = processes.start_ticks(process.pid)
        other = before.journal.begin("c1", "tool.execCommand", "d1")
        before.journal.spawned(other, namespace="another boot/1", pid=process.pid, ticks=ticks)
        reused = before.journal.begin("c2", "tool.execCommand", "d1")
        before.journal.spawned(reused, namespace=processes.namespace(), pid=process.pid, ticks=ticks - 1)
        after = Ledger(tmp_path)
        killed = [after.calls.cancel("c1"), after.calls.cancel("c2")]
        alive = seen.is_running(process.pid)
        process.kill()

    assert killed == [False, False]
    assert alive
    assert after.calls.running == 0


async def test_a_bug_in_the_work_leaves_the_call_unknown(
    ledger: Ledger,
) -> None:
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _loop, facts: reported.append(facts.get("exception")))

    def begin(_params: daemon.ExecCommandParams) -> calls.Work[daemon.ExecCommandResult]:
        done = loop.create_future()
        done.set_exception(ZeroDivisionError())
        return calls.Work(done, done.result)

    params = daemon.ExecCommandParams(command=["x"])
    with pytest.raises(errors.OutcomeUnknown):
        await ledger.calls.once(daemon.EXEC_COMMAND, params, context("c1"), begin)

    assert [type(error) for error in reported] == [ZeroDivisionError]
    assert ledger.calls.running == 0
