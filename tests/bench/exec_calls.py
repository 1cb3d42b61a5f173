"""Running `true`: over the bus, and through the gateway's HTTP, against bare chains that do only that."""

import json
import statistics
import subprocess
import sys

import aiohttp
import nats

from paddock.bus import accounts, caller, clock, rights, safeclient
from paddock.contracts import daemon, ids, subjects
from paddock.contracts.api import machines
from paddock.local import data, servers
from tests.bench import ground, rows, timing

ROUNDS, COUNT = 10, 60
RATE_ROUNDS, RATE_COUNT, WIDTH = 5, 600, 64


async def measure(house: ground.Ground, report: rows.Report) -> None:
    machine = await house.machine()
    with ground.floor("responder", house.bare_nats):
        await _over_the_bus(house, machine, report)
        port = ground.free_port()
        with ground.floor("chain", house.bare_nats, str(port)):
            await _through_the_door(house, machine, f"http://127.0.0.1:{port}/exec", report)


async def _over_the_bus(house: ground.Ground, machine: machines.Machine, report: rows.Report) -> None:
    realm = accounts.Realm.load(house.folder / "data" / "realm.json")
    url = _bus_url(house, realm)
    bare = await nats.connect(house.bare_nats)
    connection = await safeclient.connect(
        url,
        name="bench",
        creds=realm.service_creds("prober"),
        inbox_prefix=rights.inbox_prefix("prober"),
        timeout_s=10,
    )
    subject = subjects.rpc_call(ids.SandboxId(machine.sandbox_id))
    params = daemon.ExecCommandParams(command=["/bin/true"])
    wall = clock.SystemClock()
    async with caller.Caller(connection, caller_id="prober-bench", clock=wall) as asks:

        async def ours() -> None:
            done = await asks.call(
                subject, daemon.EXEC_COMMAND, params, timeout_s=30, call_id=ids.new_ulid(wall.now_ms())
            )
            assert done.exit_code == 0

        async def floor() -> None:
            await bare.request("x", b'{"command":["/bin/true"]}', timeout=30)

        mine, least = await timing.by_turns(ours, floor, rounds=ROUNDS, count=COUNT)
        many, spawns = [], []
        for _ in range(RATE_ROUNDS):
            spawns.append(bare_spawns(RATE_COUNT, WIDTH))
            many.append(await timing.rate(ours, count=RATE_COUNT, width=WIDTH))
    await connection.close()
    await bare.close()
    report.add(_ratio("exec_bus_p50", mine, least, "service → daemon → true / bare responder"))
    ratios = [ours_s / bare_s for ours_s, bare_s in zip(many, spawns, strict=True)]
    speeds = f"{statistics.median(many):.0f}/s against {statistics.median(spawns):.0f} bare spawns a second"
    note = f"{speeds}; {rows.spread(ratios)}"
    report.add(rows.Row("exec_bus_c64", statistics.median(ratios), 0.6, "×", "higher", note))


async def _through_the_door(
    house: ground.Ground, machine: machines.Machine, floor_url: str, report: rows.Report
) -> None:
    token = (house.folder / "data" / "admin.token").read_text().strip()
    params = {"machineId": machine.id, "command": ["/bin/true"]}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "machine.exec", "params": params}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post(url: str) -> None:
            async with session.post(url, data=body, headers=headers) as answer:
                done = json.loads(await answer.read())
                assert answer.status == 200, done
                assert "result" in done, done

        async def ours() -> None:
            await post(f"{house.client.url}/rpc")

        async def floor() -> None:
            await post(floor_url)

        mine, least = await timing.by_turns(ours, floor, rounds=ROUNDS, count=COUNT)
        report.add(_ratio("exec_http_p50", mine, least, "HTTP → gateway → daemon → true / floor chain"))
        ratios, ours_s, floor_s = [], [], []
        for _ in range(RATE_ROUNDS):
            floor_s.append(await timing.rate(floor, count=RATE_COUNT, width=WIDTH))
            ours_s.append(await timing.rate(ours, count=RATE_COUNT, width=WIDTH))
            ratios.append(ours_s[-1] / floor_s[-1])
    note = (
        f"{statistics.median(ours_s):.0f}/s against {statistics.median(floor_s):.0f}/s; {rows.spread(ratios)}"
    )
    report.add(rows.Row("exec_http_c64", statistics.median(ratios), 0.6, "×", "higher", note))


def bare_spawns(count: int, width: int) -> float:
    """Spawns a second of a process that does nothing else, `width` at a time."""
    arguments = ("spawns", str(count), str(width))
    ran = subprocess.run(
        [sys.executable, str(ground.FLOORS), *arguments], capture_output=True, text=True, check=True
    )
    return float(ran.stdout)


def _ratio(name: str, mine: list[list[float]], least: list[list[float]], what: str) -> rows.Row:
    ours = rows.percentile([s for one in mine for s in one], 50)
    floor = rows.percentile([s for one in least for s in one], 50)
    by_round = [rows.percentile(a, 50) / rows.percentile(b, 50) for a, b in zip(mine, least, strict=True)]
    note = f"{what}: {ours * 1e3:.2f} / {floor * 1e3:.2f} ms; {rows.spread(by_round)}"
    return rows.Row(name, ours / floor, 1.5, "×", "lower", note)


def _bus_url(house: ground.Ground, realm: accounts.Realm) -> str:
    return servers.NatsServer(data.DataFolder(house.folder / "data"), realm).url
