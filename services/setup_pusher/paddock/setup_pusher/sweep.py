"""The net under environment changes: machines that lack the newest file and for which nobody works get their run.

A change queues its work itself. This finds what a restored backup, a bug or a hand in the database left behind.
"""

import asyncio

from paddock.bus import lifecycle, logs
from paddock.contracts import errors
from paddock.store import machines, process, stage_runs

log = logs.get(__name__)

PERIOD_S = 10.0
AT_ONCE = 100


async def run(context: process.Context, stop: asyncio.Event, *, period_s: float = PERIOD_S) -> None:
    """Look until `stop`. Several may look at the same time: a run that is there already is not queued again."""
    async for _ in lifecycle.every(period_s, stop):
        try:
            found = await _look(context)
        except errors.StoreDown as fault:
            log.warning("env_sweep_failed", detail=fault.detail)
            continue
        if found:
            log.warning("environment_work_was_missing", machines=found)


async def _look(context: process.Context) -> int:
    async with context.store.read() as tx:
        lacking = await machines.lacking_env_run(tx, limit=AT_ONCE)
    for one in lacking:
        async with context.store.write(actor=context.owner) as tx:
            now = await machines.lock(tx, one.id)
            if now is not None:
                await stage_runs.plan(tx, now)
    return len(lacking)
