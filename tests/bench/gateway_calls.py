"""A method that does nothing, against an echo that does nothing, 64 connections each."""

import json
import statistics

import aiohttp

from tests.bench import ground, rows, timing

ROUNDS, COUNT, WIDTH = 7, 3000, 64


async def measure(house: ground.Ground, report: rows.Report) -> None:
    token = (house.folder / "data" / "admin.token").read_text().strip()
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "system.ping", "params": {}}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    port = ground.free_port()
    with ground.floor("chain", house.bare_nats, str(port)):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def post(url: str) -> None:
                async with session.post(url, data=body, headers=headers) as answer:
                    assert answer.status == 200
                    assert b"result" in await answer.read()

            ratios, ours, floors = [], [], []
            for _ in range(ROUNDS):
                floors.append(
                    await timing.rate(lambda: post(f"http://127.0.0.1:{port}/echo"), count=COUNT, width=WIDTH)
                )
                ours.append(
                    await timing.rate(lambda: post(f"{house.client.url}/rpc"), count=COUNT, width=WIDTH)
                )
                ratios.append(ours[-1] / floors[-1])
    note = f"{statistics.median(ours):.0f}/s against {statistics.median(floors):.0f}/s; {rows.spread(ratios)}"
    report.add(rows.Row("gateway_trivial_c64", statistics.median(ratios), 0.6, "×", "higher", note))
