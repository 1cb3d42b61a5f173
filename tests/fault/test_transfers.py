"""Files on their way while daemons are killed, buses break and others ask: nothing is lost, nobody waits, little is held."""

import asyncio
import contextlib
import functools
import hashlib
import os
import pathlib
import random
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from paddock.bus import caller, clock
from paddock.contracts import daemon, errors, files, rpc
from tests.daemon import machine as machines
from tests.daemon import transfers
from tests.support import connections, nats_server, processes

pytestmark = pytest.mark.fault

MIB = transfers.MIB
GIB = 1024 * MIB
KILLS = 6
RSS_MIB = 10
AGAIN = (errors.NoAnswer, errors.MachineOffline, errors.BusDown, errors.ShuttingDown, errors.ChannelBroken)


class Ground:
    """A machine under a supervisor, a bus, and two services that ask."""

    def __init__(self, machine: machines.Machine, moving: caller.Caller, beside: caller.Caller) -> None:
        self.machine = machine
        self.home = machine.home
        self.moving = moving
        self.beside = beside
        self.supervisor: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.supervisor = self.machine.start("supervise")

    @property
    def pid(self) -> int:
        assert self.supervisor is not None
        return machines.daemon_pid(self.supervisor)

    async def until_up(self, but: int = 0) -> int:
        await processes.until(
            lambda: self.pid not in {0, but} and self.machine.state().get("pid") == self.pid
        )
        await processes.until(lambda: self.machine.state().get("stateReason") == "ready")
        return self.pid

    async def kill(self) -> None:
        """Kill the daemon; its supervisor starts the next."""
        before = await self.until_up()
        with contextlib.suppress(ProcessLookupError):
            os.kill(before, signal.SIGKILL)
        await self.until_up(but=before)


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Iterator[machines.Machine]:
    home = tmp_path / "home"
    home.mkdir()
    made = machines.Machine(home)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[nats_server.NatsServer]:
    with nats_server.NatsServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def ground(machine: machines.Machine, server: nats_server.NatsServer) -> AsyncIterator[Ground]:
    bus = connections.Connections(server)
    now = clock.SystemClock()
    async with contextlib.AsyncExitStack() as opened:
        opened.push_async_callback(bus.close)
        registrar = machines.Registrar().serving(await bus.service("registrar"))
        await opened.enter_async_context(registrar)
        askers = [
            await opened.enter_async_context(
                caller.Caller(await bus.service("prober", pending_size=0), caller_id=name, clock=now)
            )
            for name in ("moving-x1", "beside-x1")
        ]
        machine.tell(server)
        made = Ground(machine, *askers)
        made.start()
        await made.until_up()
        yield made


async def again(work: Callable[[], Awaitable[object]]) -> None:
    """Until it is done: what broke off is begun again where it was."""
    async with asyncio.timeout(120):
        while True:
            try:
                await work()
            except* AGAIN:
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_gibibyte_each_way_leaves_the_daemon_as_small_as_it_was(ground: Ground) -> None:
    content = transfers.Content(GIB)
    small = transfers.Content(16 * MIB)
    await transfers.upload(ground.moving, "~/warm", small, "warm-up")
    await transfers.download(ground.moving, "~/warm", small)
    pid = ground.pid
    base = transfers.rss_mib(pid)
    sizes = []

    async def watch() -> None:
        while True:
            sizes.append(transfers.rss_mib(pid))
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        info = await transfers.upload(ground.moving, "~/big", content, "u1")
        end = await transfers.download(ground.moving, "~/big", content)
        watching.cancel()

    assert info.sha256 == end.sha256 == content.sha256()
    assert (min(sizes) > base - RSS_MIB, max(sizes) < base + RSS_MIB) == (True, True), (base, sizes)


async def test_an_upload_goes_through_killed_daemons_and_is_whole(
    ground: Ground, chance: random.Random
) -> None:
    content = transfers.Content(96 * MIB, chance.randbytes(8))
    done = asyncio.Event()

    async def send() -> None:
        await again(lambda: transfers.send(ground.moving, "~/f", content, "u1"))
        done.set()

    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(send())
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(0, 0.3))
            await ground.kill()
        await sending
    await again(lambda: transfers.commit(ground.moving, "~/f", content, "u1"))

    assert done.is_set()
    with (ground.home / "f").open("rb") as written:
        assert hashlib.file_digest(written, "sha256").hexdigest() == content.sha256()
    assert list(ground.home.glob(".paddock-*.part")) == []


async def test_commits_under_killed_daemons_put_each_file_in_place_whole_or_not_at_all(
    ground: Ground, chance: random.Random
) -> None:
    old, new = transfers.Content(3 * MIB, b"old"), transfers.Content(8 * MIB, b"new")
    for number in range(KILLS):
        path, upload = f"~/f{number}", f"u{number}"
        await again(lambda: transfers.upload(ground.moving, path, old, f"{upload}-old"))  # noqa: B023
        await again(lambda: transfers.send(ground.moving, path, new, upload))  # noqa: B023
        async with asyncio.TaskGroup() as tasks:
            committing = tasks.create_task(_tried(transfers.commit(ground.moving, path, new, upload)))
            await asyncio.sleep(chance.uniform(0, 0.03))
            await ground.kill()
        with (ground.home / f"f{number}").open("rb") as there:
            digest = hashlib.file_digest(there, "sha256").hexdigest()
        assert digest in {old.sha256(), new.sha256()}
        assert not isinstance(committing.result(), files.FileInfo) or digest == new.sha256()
        info = await transfers.commit(ground.moving, path, new, upload)
        assert info.sha256 == new.sha256()


async def _tried(work: Awaitable[object]) -> object:
    try:
        return await work
    except errors.Fault as fault:
        return fault


async def test_a_download_goes_through_killed_daemons_byte_for_byte(
    ground: Ground, chance: random.Random
) -> None:
    content = transfers.Content(96 * MIB)
    info = await transfers.upload(ground.moving, "~/f", content, "u1")
    got, end = 0, files.ReadEnd(size=0)

    async def read() -> None:
        nonlocal got, end
        params = files.ReadParams(path="~/f", offset=got, version=info.version)
        async with ground.moving.open(transfers.CALL, files.READ, params, timeout_s=10) as channel:
            async for frame in channel:
                assert frame.data == content.part(got, len(frame.data))
                got += len(frame.data)
            end = channel.end

    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(again(read))
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(0, 0.2))
            if not reading.done():
                await ground.kill()

    assert got == content.size
    assert end == files.ReadEnd(size=content.size, sha256=content.sha256())


async def test_two_uploads_to_one_path_under_killed_daemons_leave_the_last_one_whole(
    ground: Ground, chance: random.Random
) -> None:
    contents = {upload: transfers.Content(32 * MIB, upload.encode()) for upload in ("one", "two")}
    async with asyncio.TaskGroup() as tasks:
        for upload, content in contents.items():
            tasks.create_task(again(functools.partial(_send, ground, content, upload)))
        for _ in range(KILLS // 2):
            await asyncio.sleep(chance.uniform(0, 0.3))
            await ground.kill()
    for upload in ("two", "one"):
        await transfers.commit(ground.moving, "~/f", contents[upload], upload)

    with (ground.home / "f").open("rb") as written:
        assert hashlib.file_digest(written, "sha256").hexdigest() == contents["one"].sha256()


async def test_a_bus_that_dies_under_a_transfer_loses_nothing(
    ground: Ground, server: nats_server.NatsServer
) -> None:
    content = transfers.Content(64 * MIB)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(again(lambda: transfers.send(ground.moving, "~/f", content, "u1")))
        for _ in range(2):
            await asyncio.sleep(0.2)
            server.kill()
            server.start()
            await processes.until(lambda: _is_answering(ground), timeout_s=30)
    info = await transfers.commit(ground.moving, "~/f", content, "u1")

    assert info.sha256 == content.sha256()


def _is_answering(ground: Ground) -> bool:
    return ground.machine.state().get("state") == "running"


async def _send(ground: Ground, content: transfers.Content, upload: str) -> None:
    await transfers.send(ground.moving, "~/f", content, upload)


@pytest.mark.parametrize("way", ["up", "down"])
async def test_others_are_answered_while_a_file_moves(
    ground: Ground, server: nats_server.NatsServer, way: str
) -> None:
    """Within five times of what they take on an idle daemon, at the median; another process moves the file."""
    command = daemon.ExecCommandParams(command=["true"])
    idle: dict[str, list[float]] = {"ping": [], "exec": []}
    busy: dict[str, list[float]] = {"ping": [], "exec": []}

    async def ask(took: dict[str, list[float]]) -> None:
        took["ping"].append(await _timed(ground.beside, daemon.PING, rpc.Empty()))
        took["exec"].append(await _timed(ground.beside, daemon.EXEC_COMMAND, command))

    with _moving(server, ground.home.parent / "prober.creds", way) as moving:
        for _ in range(4):
            for _ in range(40):
                await ask(idle)
            await asyncio.to_thread(moving.go)
            while not moving.is_done():
                await ask(busy)

    for what in ("ping", "exec"):
        ratio = statistics.median(busy[what]) / statistics.median(idle[what])
        print(f"{what} beside a file on its way {way}: {ratio:.1f} times idle, {len(busy[what])} of them")
        assert ratio <= 5


class Moving:
    """Another process, which moves a file whenever it is told to."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.expect("ready")

    def expect(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{word}\n"

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self.expect("begun")

    def is_done(self) -> bool:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], 0)[0]:
            return False
        self.expect("done")
        return True


@contextlib.contextmanager
def _moving(server: nats_server.NatsServer, creds: pathlib.Path, way: str) -> Iterator[Moving]:
    creds.write_text(server.realm.service_creds("prober"))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.daemon.transfers", server.url, str(creds), way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Moving(process)
        finally:
            process.kill()


async def _timed(asking: caller.Caller, method: rpc.Method, params: object) -> float:  # type: ignore[type-arg]
    began = time.perf_counter()
    await asking.call(transfers.CALL, method, params, timeout_s=30)
    return time.perf_counter() - began
