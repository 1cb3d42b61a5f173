"""file.* of a real daemon over a real bus: once for a call id, in time, through kills, and with little memory."""

import asyncio
import contextlib
import hashlib
import pathlib
import signal
import subprocess
from typing import Any

import pytest

from paddock.bus import caller, clock, handlers
from paddock.contracts import daemon, errors, files, ids, rpc, subjects
from paddock.daemon import calls, file_handlers, journal
from tests.daemon import machine as machines
from tests.daemon import transfers
from tests.support import nats_server, processes

CALL = transfers.CALL
MIB = transfers.MIB


class Running:
    """A machine whose daemon runs, and whoever asks it."""

    def __init__(self, machine: machines.Machine, asking: caller.Caller) -> None:
        self.machine = machine
        self.home = machine.home
        self.asking = asking
        self.daemon = machine.start("run")

    async def ask(self, method: rpc.Method[Any, Any], params: Any, call_id: str = "") -> Any:
        return await self.asking.call(CALL, method, params, timeout_s=20, call_id=call_id)

    async def until_up(self) -> None:
        await processes.until(lambda: self.machine.state().get("pid") == self.daemon.pid)
        await processes.until(lambda: self.machine.state().get("stateReason") == "ready")

    async def kill(self) -> None:
        self.daemon.kill()
        await asyncio.to_thread(self.daemon.wait)

    async def restart(self) -> None:
        self.daemon = self.machine.start("run")
        await self.until_up()

    def holds_open(self, path: pathlib.Path) -> bool:
        found = []
        for link in pathlib.Path(f"/proc/{self.daemon.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(link.readlink())
        return path in found


@pytest.fixture
async def running(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> Running:
    assert registrar.readies == []
    machine.tell(server)
    made = Running(machine, asking)
    await made.until_up()
    return made


async def test_what_is_sent_is_there_and_comes_back_with_the_daemon_as_small_as_before(
    running: Running,
) -> None:
    content = transfers.Content(96 * MIB + 5)
    await transfers.upload(running.asking, "~/first", transfers.Content(8 * MIB), "warm-up")
    await transfers.download(running.asking, "~/first", transfers.Content(8 * MIB))
    before = transfers.rss_mib(running.daemon.pid)
    sizes = []
    info = await transfers.upload(running.asking, "~/big", content, "u1")
    sizes.append(transfers.rss_mib(running.daemon.pid))

    def look(got: int) -> None:
        if got % (8 * MIB) == 0:
            sizes.append(transfers.rss_mib(running.daemon.pid))

    end = await transfers.download(running.asking, "~/big", content, on_frame=look)

    assert (info.size, info.sha256) == (content.size, content.sha256())
    assert end == files.ReadEnd(size=content.size, sha256=info.sha256)
    assert max(sizes) < before + 10


async def test_killed_in_the_middle_of_an_upload_it_goes_on_where_it_was(running: Running) -> None:
    content = transfers.Content(16 * MIB)
    await transfers.send(running.asking, "~/f", content, "u1", to=5 * MIB)
    await running.kill()
    await running.restart()
    received = await transfers.write(running.asking, files.WriteParams(path="~/f", upload="u1"))
    info = await transfers.upload(running.asking, "~/f", content, "u1")

    assert received == 5 * MIB
    assert info.sha256 == content.sha256()
    with (running.home / "f").open("rb") as written:
        assert hashlib.file_digest(written, "sha256").hexdigest() == content.sha256()


async def test_killed_in_the_middle_of_a_download_it_goes_on_in_the_same_file(running: Running) -> None:
    content = transfers.Content(16 * MIB)
    info = await transfers.upload(running.asking, "~/f", content, "u1")
    got = 0
    reading = transfers.frames(running.asking, files.ReadParams(path="~/f"))
    while got < 2 * MIB:
        got += len(await anext(reading))
    await running.kill()
    with pytest.raises(errors.ChannelBroken):
        got += sum([len(frame) async for frame in reading])
    await running.restart()
    params = files.ReadParams(path="~/f", offset=got, version=info.version)
    async with running.asking.open(CALL, files.READ, params, timeout_s=10) as channel:
        async for part in channel:
            assert part.data == content.part(got, len(part.data))
            got += len(part.data)

    assert got == content.size
    assert channel.end.sha256 == content.sha256()


async def test_a_reading_nobody_wants_any_more_lets_go_of_the_file(running: Running) -> None:
    await transfers.upload(running.asking, "~/f", transfers.Content(16 * MIB), "u1")
    reading = transfers.frames(running.asking, files.ReadParams(path="~/f"))
    await anext(reading)
    assert running.holds_open(running.home / "f")
    await reading.aclose()

    await processes.until(lambda: not running.holds_open(running.home / "f"))


async def test_a_change_is_made_once_for_its_call_id(running: Running) -> None:
    folder = running.home / "d"
    made = [await running.ask(files.MKDIR, files.MkdirParams(path="~/d"), "make-1") for _ in range(2)]
    for _ in range(2):
        await running.ask(files.REMOVE, files.RemoveParams(path="~/d"), "remove-1")
        folder.mkdir(exist_ok=True)
    (running.home / "a").write_text("1")
    for _ in range(2):
        await running.ask(files.MOVE, files.MoveParams(path="~/a", to="~/b"), "move-1")
        (running.home / "a").write_text("2")
    for _ in range(2):
        await running.ask(files.CHMOD, files.ChmodParams(path="~/a", mode=0o600), "chmod-1")
        (running.home / "a").chmod(0o644)
    with pytest.raises(errors.CallConflict):
        await running.ask(files.MKDIR, files.MkdirParams(path="~/other"), "make-1")

    assert made[0] == made[1]
    assert folder.exists()
    assert ((running.home / "a").read_text(), (running.home / "b").read_text()) == ("2", "1")
    assert (running.home / "a").stat().st_mode & 0o777 == 0o644


async def test_a_commit_whose_answer_was_lost_answers_the_same_by_any_call_id(running: Running) -> None:
    content = transfers.Content(1000)
    await transfers.send(running.asking, "~/f", content, "u1")
    first = await transfers.commit(running.asking, "~/f", content, "u1", "commit-1")
    (running.home / "f").write_text("changed since")
    again = await transfers.commit(running.asking, "~/f", content, "u1", "commit-1")
    await running.kill()
    await running.restart()
    later = await transfers.commit(running.asking, "~/f", content, "u1", "commit-2")

    assert first == again == later
    assert (running.home / "f").read_text() == "changed since"


async def test_a_refusal_is_the_same_each_time_and_the_upload_is_kept(running: Running) -> None:
    content = transfers.Content(1000)
    await transfers.send(running.asking, "~/f", content, "u1")
    (running.home / "f").mkdir()
    for _ in range(2):
        with pytest.raises(errors.IsADirectory):
            await transfers.commit(running.asking, "~/f", content, "u1", "commit-1")
        if (running.home / "f").exists():
            (running.home / "f").rmdir()
    info = await transfers.commit(running.asking, "~/f", content, "u1", "commit-2")

    assert info.size == 1000


async def test_answers_larger_than_a_message_come_whole(running: Running) -> None:
    folder = running.home / "many"
    folder.mkdir()
    for number in range(6000):
        (folder / f"{number:05}-{'x' * 150}").touch()
    page = await running.ask(files.LIST, files.ListParams(path="~/many", limit=5000))
    rest = await running.ask(
        files.LIST, files.ListParams(path="~/many", limit=5000, after=page.entries[-1].name)
    )
    found = await running.ask(files.FIND, files.FindParams(path="~", pattern="0*", limit=5000))

    assert [len(page.entries), len(rest.entries), page.is_last, rest.is_last] == [5000, 1000, False, True]
    assert (len(found.entries), found.is_complete) == (5000, False)


async def test_offsets_and_lengths_below_nothing_are_refused(running: Running) -> None:
    (running.home / "f").write_text("content")
    for params in (
        {"path": "~/f", "offset": -1},
        {"path": "~/f", "length": -1},
        {"path": "~/f", "offset": 2**63},
    ):
        with pytest.raises(errors.InvalidParams):
            async with running.asking.open(CALL, files.READ, _unchecked(params), timeout_s=10):
                pass
    with pytest.raises(errors.BadOffset) as caught:
        async with running.asking.open(
            CALL, files.READ, files.ReadParams(path="~/f", offset=8), timeout_s=10
        ):
            pass

    assert caught.value.data == {"sizeBytes": 7}


class _Raw(rpc.Wire, frozen=True):
    path: str
    offset: int = 0
    length: int | None = None


def _unchecked(params: dict[str, Any]) -> Any:
    return _Raw(**params)


async def test_a_large_tree_is_removed_while_others_are_answered(running: Running) -> None:
    _plant(running.home / "tree", 20_000)
    removing = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(
            running.ask(files.REMOVE, files.RemoveParams(path="~/tree", recursive=True), "r1")
        )
        task.add_done_callback(lambda _: removing.set())
        answered = 0
        while not removing.is_set():
            await running.ask(daemon.PING, rpc.Empty())
            answered += 1

    assert not (running.home / "tree").exists()
    assert answered > 10


async def test_a_long_change_can_be_cancelled_and_its_outcome_is_unknown(running: Running) -> None:
    params = _endless(running.home)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_outcome(running.ask(files.REMOVE, params, "r1")))
        await processes.until(lambda: running.holds_open(running.home / "huge"))
        control = subjects.rpc_control(machines.SANDBOX)
        stop = daemon.CallParams(call_id="r1")
        cancelled = await running.asking.call(control, daemon.CALL_CANCEL, stop, timeout_s=10)
    await processes.until(lambda: not running.holds_open(running.home / "huge"))

    assert cancelled.was_running
    assert isinstance(task.result(), errors.OutcomeUnknown)
    assert (running.home / "huge").exists()


async def test_told_to_stop_in_the_middle_of_a_change_it_stops(running: Running) -> None:
    params = _endless(running.home)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_outcome(running.ask(files.REMOVE, params, "r1")))
        await processes.until(lambda: running.holds_open(running.home / "huge"))
        running.daemon.send_signal(signal.SIGTERM)
        assert await machines.ended(running.daemon) == daemon.EXIT_STOP
    await running.restart()

    assert isinstance(await _outcome(running.ask(files.REMOVE, params, "r1")), errors.OutcomeUnknown)
    assert (running.home / "huge").exists()


def _endless(home: pathlib.Path) -> files.RemoveParams:
    """A change that takes minutes: all of this has to be read first."""
    with (home / "huge").open("wb") as sparse:
        sparse.truncate(400 * 1024 * MIB)
    return files.RemoveParams(path="~/huge", expected_sha256="0" * 64)


def _plant(top: pathlib.Path, count: int) -> None:
    script = f"""
import pathlib
for n in range({count}):
    folder = pathlib.Path(str(n % 100))
    folder.mkdir(exist_ok=True)
    (folder / str(n)).touch()
"""
    top.mkdir()
    subprocess.run(["python3", "-c", script], cwd=top, check=True)


async def _outcome(asking: Any) -> object:
    try:
        return await asking
    except errors.Fault as fault:
        return fault


async def test_what_takes_longer_than_an_answer_may_is_refused_in_time(home: pathlib.Path) -> None:
    with (home / "huge").open("wb") as sparse:
        sparse.truncate(200 * 1024 * MIB)
    made = _handlers(home)
    context = _context(held_s=0.4)
    before = processes.open_fds()
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(errors.DeadlineExceeded, match=r"^cannot read all of "):
        await made.stat(files.StatParams(path=str(home / "huge"), digest=True), context)
    took_s = loop.time() - began
    await processes.until(lambda: processes.open_fds() <= before)

    assert took_s < 0.4


async def test_a_reading_whose_opener_gave_up_lets_go_of_the_file(home: pathlib.Path) -> None:
    (home / "f").write_text("content")
    before = processes.open_fds()
    made = _handlers(home)
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(made.read(files.ReadParams(path=str(home / "f")), _context()))
            for _ in range(10)
        ]
        await asyncio.sleep(0)
        for task in asked:
            task.cancel()
    await processes.until(lambda: processes.open_fds() <= before)

    assert all(task.cancelled() for task in asked)


def _handlers(home: pathlib.Path) -> file_handlers.FileHandlers:
    now = clock.SystemClock()
    ledger = calls.Calls(journal.Journal(home / "journal", now))
    return file_handlers.FileHandlers(ledger=ledger, home=str(home), folder=home / ".paddock", now=now)


def _context(held_s: float = 1) -> handlers.CallContext:
    return handlers.CallContext(
        subject="",
        caller="",
        call_id=ids.new_ulid(0),
        deadline_ms=0,
        traceparent="",
        request_id="",
        held_s=held_s,
    )
