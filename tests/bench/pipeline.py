"""The control plane's own share of created → active, read from machines' histories.

(created → provider called) + (the later of ready received and external id known → active). What lies between is the
provider's and the daemon's.
"""

import asyncio
import datetime

from paddock.contracts.api import machines
from tests.bench import ground, rows

SOLO, TOGETHER = 15, 50


async def measure(house: ground.Ground, report: rows.Report) -> None:
    project = (await house.client.projects.create("pipeline", provider=house.provider)).id
    await house.machine(project)  # the first pays for what is made once
    solo = []
    for _ in range(SOLO):
        machine = await house.machine(project)
        solo.append(share_ms(await house.client.machines.history(machine.id)))
        await house.client.machines.delete(machine.id, wait_s=60)
    p50 = rows.percentile(solo, 50)
    note = f"{SOLO} machines one by one, {house.provider}; {min(solo):.0f} to {max(solo):.0f} ms"
    report.add(rows.Row("share_solo_p50", p50, 60.0, "ms", "lower", note))

    async with asyncio.TaskGroup() as group:
        made = [group.create_task(_settled(house, project)) for _ in range(TOGETHER)]
    shares = [share_ms(await house.client.machines.history(task.result().id)) for task in made]
    p95 = rows.percentile(shares, 95)
    note = f"{TOGETHER} at once, all active; p95 {p95:.0f} ms, p50 {rows.percentile(shares, 50):.0f} ms"
    report.add(rows.Row("share_fifty_p95", p95 / p50, 10.0, "× solo p50", "lower", note))


async def _settled(house: ground.Ground, project: str) -> machines.Machine:
    made = await house.client.machines.create(project, wait_s=60)
    async with asyncio.timeout(180):
        while made.phase != "active":
            if made.phase == "failed":
                raise RuntimeError(f"a machine failed: {made.reason}")
            await asyncio.sleep(0.2)
            made = await house.client.machines.get(made.id)
    return made


def share_ms(history: machines.History) -> float:
    created = _at(history.moves[0].at)
    active = _at(next(move.at for move in history.moves if move.phase == "active"))
    box = history.sandboxes[-1]
    both = max(_at(box.external_at), _at(box.ready_at))
    return ((_at(box.called_at) - created) + (active - both)).total_seconds() * 1000


def _at(moment: str | None) -> datetime.datetime:
    assert moment is not None, "the history lacks a time"
    return datetime.datetime.fromisoformat(moment)
