"""The daemon alone: how soon it is ready, what it weighs, what it costs to have it do nothing."""

import asyncio
import json
import os
import pathlib
import statistics
import subprocess
import time

from paddock.bus import clock, files, responder, rights
from paddock.contracts import daemon, ids, subjects
from tests.bench import ground, rows
from tests.support import connections, nats_server

STARTS = 12
IDLE_S = 20.0
_SANDBOX = "mbench-1"
_RUNTIME = pathlib.Path("build/daemon-venv/bin/python")


async def measure(house: ground.Ground, report: rows.Report) -> None:
    with nats_server.NatsServer(house.folder / "nats") as server:
        bus = connections.Connections(server)
        ready: asyncio.Queue[str] = asyncio.Queue()
        stop = asyncio.Event()

        def on_ready(params: daemon.ReadyParams, _call: responder.CallContext) -> daemon.ReadyResult:
            ready.put_nowait(params.boot_id)
            return daemon.ReadyResult(answer="ok", now_ms=clock.SystemClock().now_ms())

        async with asyncio.TaskGroup() as group:
            desk = responder.Responder(
                await bus.service("registrar", pending_size=0), subject=subjects.REPORT_CALLS, clock=clock.SystemClock(),
                handlers=responder.table(responder.handler(daemon.READY, on_ready)), tasks=group,
            )  # fmt: skip
            group.create_task(desk.serve(stop, drain_s=1))
            home = _home(house.folder / "home", server)
            await _starts(home, ready, report)
            await _weight(home, ready, house, report)
            stop.set()
        await bus.close()


async def _starts(home: pathlib.Path, ready: "asyncio.Queue[str]", report: rows.Report) -> None:
    imports = [str(_RUNTIME), "-c", "import sys; sys.modules['aiohttp'] = None; import nats, msgspec"]
    ours, floor, ratios = [], [], []
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run(imports, check=True)
        floor.append(time.perf_counter() - began)
        began = time.perf_counter()
        process = _daemon(home)
        async with asyncio.timeout(30):
            await ready.get()
        ours.append(time.perf_counter() - began)
        ratios.append(ours[-1] / floor[-1])
        await _end(process)
    value = statistics.median(ours) / statistics.median(floor)
    took = f"{statistics.median(ours) * 1e3:.0f} ms / {statistics.median(floor) * 1e3:.0f} ms"
    note = f"{took} importing nats and msgspec; {rows.spread(ratios)}"
    report.add(rows.Row("daemon_start", value, 1.5, "×", "lower", note))


async def _weight(
    home: pathlib.Path, ready: "asyncio.Queue[str]", house: ground.Ground, report: rows.Report
) -> None:
    floors = str(ground.FLOORS)
    bare = subprocess.Popen(
        [str(_RUNTIME), floors, "subscriber", house.bare_nats], stdout=subprocess.PIPE, text=True
    )
    assert bare.stdout is not None
    assert bare.stdout.readline() == "ready\n"
    process = _daemon(home)
    async with asyncio.timeout(30):
        await ready.get()
    before = _cpu_s(process.pid)
    began = time.perf_counter()
    await asyncio.sleep(IDLE_S)  # being idle is what is measured
    cpu = 100 * (_cpu_s(process.pid) - before) / (time.perf_counter() - began)
    mine, least = _pss_mib(process.pid), _pss_mib(bare.pid)
    report.add(
        rows.Row(
            "daemon_memory",
            mine / least,
            1.25,
            "×",
            "lower",
            f"PSS {mine:.1f} MiB / {least:.1f} MiB of a bare subscriber",
        )
    )
    report.add(
        rows.Row(
            "daemon_idle_cpu",
            cpu,
            0.2,
            "%",
            "lower",
            f"of one core over {IDLE_S:.0f} s, heartbeats included; the kernel counts in 10 ms",
        )
    )
    await _end(process)
    bare.terminate()
    bare.wait(10)
    bare.stdout.close()


def _home(home: pathlib.Path, server: nats_server.NatsServer) -> pathlib.Path:
    box = ids.SandboxId(_SANDBOX)
    own = home / ".paddock"
    own.mkdir(parents=True, mode=0o700)
    files.write_private(own / "bus.creds", server.daemon_creds(box).text.encode())
    boot = {
        "machineId": "mbench", "generation": 1, "sandboxId": box, "busUrl": server.url,
        "credentialsFile": str(own / "bus.creds"), "nodeName": "bench", "inboxPrefix": rights.inbox_prefix(box),
    }  # fmt: skip
    files.write_private(own / "boot.json", json.dumps(boot).encode())
    return home


def _daemon(home: pathlib.Path) -> subprocess.Popen[bytes]:
    environment = {
        "HOME": str(home),
        "PADDOCK_HOME": str(home / ".paddock"),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
    }
    command = [str(_RUNTIME.with_name("paddockd")), "run"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    await asyncio.to_thread(process.wait, 20)


def _cpu_s(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pss_mib(pid: int) -> float:
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
