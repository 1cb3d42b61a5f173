"""Following commands and moving files over the bus, against raw nats-py with the same chunks and credit."""

import asyncio
import contextlib
import hashlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import nats

from paddock.bus import accounts, caller, clock, rights, safeclient
from paddock.contracts import daemon, executions, files, ids, rpc, subjects
from paddock.contracts.api import machines
from paddock.local import data, servers
from tests.bench import ground, rows, timing

MIB = 1024 * 1024
MOVED_BYTES = 96 * MIB
ROUNDS = 5
BYTES, PAUSE_S = 300, 0.004
"""Of the command whose output is timed: so many lines, so far apart."""
PINGS = 200
SAYS_WHEN = f"""
import os, time
time.sleep(0.3)
for _ in range({BYTES}):
    os.write(1, b"%d\\n" % time.monotonic_ns())
    time.sleep({PAUSE_S})
"""


class Bus:
    """A service's connection to the daemon of one machine."""

    def __init__(self, asks: caller.Caller, machine: machines.Machine) -> None:
        self.asks = asks
        self.subject = subjects.rpc_call(ids.SandboxId(machine.sandbox_id))

    async def start(self, command: list[str]) -> str:
        name = ids.new_ulid(clock.SystemClock().now_ms())
        asked = executions.StartParams(id=name, command=command, background=True)
        await self.asks.call(self.subject, executions.START, asked, timeout_s=30)
        return name

    async def ping(self) -> None:
        await self.asks.call(self.subject, daemon.PING, rpc.Empty(), timeout_s=30)


async def measure(house: ground.Ground, report: rows.Report) -> None:
    machine = await house.machine()
    async with _bus(house, machine) as bus:
        with ground.floor("subscriber", house.bare_nats):
            await _first_byte(house, bus, report)
        with ground.floor("chunks", house.bare_nats, str(MOVED_BYTES)):
            await _throughput(house, bus, report)
        await _calls_beside(bus, report)


async def _first_byte(house: ground.Ground, bus: Bus, report: rows.Report) -> None:
    """From a command's write to whoever is attached, against a round trip between two bare clients."""
    bare = await nats.connect(house.bare_nats)

    async def echo() -> float:
        began = time.perf_counter()
        await bare.request("x", b"x" * 20, timeout=30)
        return time.perf_counter() - began

    async def round_trips_at_that_pace() -> list[float]:
        # As far apart as the lines: processes that sleep in between are slower to wake than busy ones.
        took = []
        for _ in range(PINGS):
            await asyncio.sleep(PAUSE_S)
            took.append(await echo())
        return took

    round_trips = await round_trips_at_that_pace()
    name = await bus.start(["python3", "-c", SAYS_WHEN])
    late = []
    async with bus.asks.open(
        bus.subject, executions.ATTACH, executions.AttachParams(id=name), timeout_s=30
    ) as channel:
        async for frame in channel:
            arrived = time.monotonic_ns()
            # Several lines in one frame: the last is the one that is new.
            late.append((arrived - int(bytes(frame.data).split()[-1])) / 1e9)
    round_trips += await round_trips_at_that_pace()
    await bare.close()
    assert len(late) > BYTES / 2, f"{len(late)} of {BYTES} lines arrived on their own"
    ours, floor = rows.percentile(late, 50), rows.percentile(round_trips, 50)
    note = (
        f"write in the machine → attached service / bare round trip: {ours * 1e3:.2f} / {floor * 1e3:.2f} ms"
    )
    report.add(rows.Row("first_byte_p50", ours / floor, 1.5, "×", "lower", note))


async def _throughput(house: ground.Ground, bus: Bus, report: rows.Report) -> None:
    name = await bus.start(["head", "-c", str(MOVED_BYTES), "/dev/zero"])
    await bus.asks.call(bus.subject, executions.WAIT, executions.WaitParams(id=name), timeout_s=60)

    async def kept() -> None:
        await _follow(bus, name)

    async def live() -> None:
        await _follow(bus, await bus.start(["head", "-c", str(MOVED_BYTES), "/dev/zero"]))

    async def download() -> None:
        params = files.ReadParams(path="~/moved")
        async with bus.asks.open(bus.subject, files.READ, params, timeout_s=30) as channel:
            got = 0
            async for frame in channel:
                got += len(frame.data)
        assert got == MOVED_BYTES == channel.end.size

    works: dict[str, tuple[Callable[[], Awaitable[None]], float]] = {
        "stream_kept": (kept, 0.6),
        "stream_live": (live, 0.6),
        "upload": (lambda: _upload(bus), 0.5),
        "download": (download, 0.5),
    }
    speeds: dict[str, list[float]] = {one: [] for one in works}
    floors: list[float] = []
    for _ in range(ROUNDS):
        for one, (work, _goal) in works.items():
            floors.append(_bare(house.bare_nats))
            speeds[one].append(await _timed(work) / floors[-1])
    floor = statistics.median(floors)
    for one, (_work, goal) in works.items():
        ratio = statistics.median(speeds[one])
        note = f"about {ratio * floor:.0f} / {floor:.0f} MiB/s in chunks by bare nats-py; {rows.spread(speeds[one])}"
        report.add(rows.Row(one, ratio, goal, "×", "higher", note))


async def _calls_beside(bus: Bus, report: rows.Report) -> None:
    """Other calls on the same daemon while a file comes in and another goes out."""
    idle = await timing.one_by_one(bus.ping, PINGS)
    busy: list[float] = []
    async with asyncio.TaskGroup() as group:
        moving = group.create_task(_upload(bus, f"beside-{ids.new_ulid(0)}"))
        while not moving.done():
            busy += await timing.one_by_one(bus.ping, 10)
    ours, floor = rows.percentile(busy, 50), rows.percentile(idle, 50)
    note = f"p50 of a ping while a file comes in / idle: {ours * 1e3:.2f} / {floor * 1e3:.2f} ms, {len(busy)} of them"
    report.add(rows.Row("calls_beside", ours / floor, 5.0, "×", "lower", note))


async def _follow(bus: Bus, name: str) -> None:
    params = executions.AttachParams(id=name)
    got = 0
    async with bus.asks.open(bus.subject, executions.ATTACH, params, timeout_s=30) as channel:
        async for frame in channel:
            got += len(frame.data)
    assert got == MOVED_BYTES == channel.end.stdout_bytes


async def _upload(bus: Bus, upload: str = "") -> None:
    upload = upload or ids.new_ulid(clock.SystemClock().now_ms())
    part = os.urandom(files.PART_BYTES)
    digest = hashlib.sha256()
    slots = asyncio.Semaphore(rpc.FRAME_WINDOW)

    async def send(offset: int) -> None:
        params = files.WriteParams(path="~/moved", upload=upload, offset=offset)
        try:
            await bus.asks.call(bus.subject, files.WRITE, params, timeout_s=30, blob=part)
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group:
        for offset in range(0, MOVED_BYTES, len(part)):
            await slots.acquire()
            digest.update(part)
            group.create_task(send(offset))
    params = files.CommitParams(path="~/moved", upload=upload, size=MOVED_BYTES, sha256=digest.hexdigest())
    await bus.asks.call(bus.subject, files.COMMIT, params, timeout_s=30)


def _bare(url: str) -> float:
    """MiB a second of the same bytes in the same chunks under the same credit, by nats-py alone at both ends."""
    floor = [sys.executable, str(ground.FLOORS), "taker", url, str(MOVED_BYTES)]
    ran = subprocess.run(floor, capture_output=True, text=True, check=True, timeout=60)
    return MOVED_BYTES / MIB / float(ran.stdout)


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    """MiB a second."""
    began = time.perf_counter()
    await work()
    return MOVED_BYTES / MIB / (time.perf_counter() - began)


@contextlib.asynccontextmanager
async def _bus(house: ground.Ground, machine: machines.Machine) -> AsyncIterator[Bus]:
    realm = accounts.Realm.load(house.folder / "data" / "realm.json")
    connection = await safeclient.connect(
        servers.NatsServer(data.DataFolder(house.folder / "data"), realm).url,
        name="bench",
        creds=realm.service_creds("prober"),
        inbox_prefix=rights.inbox_prefix("prober"),
        timeout_s=10,
    )
    try:
        async with caller.Caller(connection, caller_id="prober-tools", clock=clock.SystemClock()) as asks:
            yield Bus(asks, machine)
    finally:
        await connection.close()
