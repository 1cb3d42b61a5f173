"""The net under environment changes."""

import asyncio

import sqlalchemy as sa

from paddock.contracts import ids, phases
from paddock.setup_pusher import settings, sweep
from paddock.store import engine, machines, process, schema, stage_runs
from tests.setup_pusher import states
from tests.support import house

MACHINE = ids.MachineId("mswept")


async def test_a_machine_whose_environment_work_got_lost_is_found_and_gets_it(ground: house.House) -> None:
    await states.active(ground.store, MACHINE, "b1")
    async with ground.store.write() as tx:  # a hand in the database: no event, no run
        await tx.execute(
            sa.update(schema.machines).where(schema.machines.c.id == MACHINE).values(env_desired=7)
        )
    stop = asyncio.Event()

    async def run_of(tx: engine.Tx) -> stage_runs.Run | None:
        return await stage_runs.unfinished(tx, MACHINE, phases.Lane.GUEST)

    told = ground.settings_for(settings.Settings)
    async with process.open_context(told, store=ground.store) as context, asyncio.TaskGroup() as group:
        group.create_task(sweep.run(context, stop, period_s=0.05))
        found = await ground.until(run_of, lambda run: run is not None)
        stop.set()

    async with ground.store.read() as tx:
        runs = [run for run in await stage_runs.history(tx, MACHINE) if run.stage is phases.Stage.ENV]
        assert (await machines.get(tx, MACHINE)).env_desired == 7
    assert found.stage is phases.Stage.ENV
    assert len(runs) == 1
