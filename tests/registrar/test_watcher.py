"""`connection`: online with the first beat, offline after two missed, and never a false alarm."""

import asyncio

from paddock.bus import safeclient
from paddock.contracts import phases, subjects
from paddock.store import engine, machines, process, stage_runs
from tests.registrar.conftest import daemon_of
from tests.registrar.test_reports import _begin
from tests.support import house


async def _beating(connection: safeclient.SafeClient, machine: machines.Machine, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await connection.publish(subjects.report_beat(machine.sandbox_id), b"{}")
        await asyncio.sleep(0.2)  # a heartbeat is a matter of time


async def _connection(
    ground: house.House, machine: machines.Machine, wanted: phases.Connection
) -> machines.Machine:
    async def look(tx: engine.Tx) -> machines.Machine:
        return await machines.get(tx, machine.id)

    found: machines.Machine = await ground.until(look, lambda now: now.connection is wanted, within_s=20)
    return found


async def test_a_machine_that_falls_silent_is_offline_after_two_beats_and_online_with_the_next(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    await _begin(ground, machine, phases.CLAIM, phases.BOOT, external="x")
    connection = await ground.bus.daemon(machine.sandbox_id)
    async with daemon_of(ground, machine.id) as daemon:
        await daemon.ready()
    async with asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        group.create_task(_beating(connection, machine, stop))
        await _connection(ground, machine, phases.Connection.ONLINE)
        stop.set()

    silent = await _connection(ground, machine, phases.Connection.OFFLINE)
    assert silent.last_seen_at is not None

    async with asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        group.create_task(_beating(connection, machine, stop))
        await _connection(ground, machine, phases.Connection.ONLINE)
        stop.set()


async def test_an_emptied_redis_takes_nobody_offline_who_beats(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    await _begin(ground, machine, phases.CLAIM, phases.BOOT, external="x")
    connection = await ground.bus.daemon(machine.sandbox_id)
    async with daemon_of(ground, machine.id) as daemon:
        await daemon.ready()
    async with asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        group.create_task(_beating(connection, machine, stop))
        await _connection(ground, machine, phases.Connection.ONLINE)

        ground.redis.stop()
        ground.redis.start()
        await asyncio.sleep(2.5)  # several looks of the watcher: the claim is that none of them errs
        stop.set()

    async with ground.store.read() as tx:
        trail = await machines.get(tx, machine.id)
    assert trail.connection is phases.Connection.ONLINE
    assert trail.seq == 5  # created, claim, boot, online, setting up: no flapping


async def test_an_active_machine_whose_connection_changes_is_probed(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    async def probes(tx: engine.Tx) -> list[stage_runs.Run]:
        return [run for run in await stage_runs.history(tx, machine.id) if run.stage is phases.Stage.PROBE]

    await _begin(ground, machine, phases.CLAIM, phases.BOOT, external="x")
    async with daemon_of(ground, machine.id) as daemon:
        await daemon.ready()
    async with ground.store.write(actor="test") as tx:
        await machines.set_env_applied(tx, machine.id, machine.env_desired)
        await machines.move(tx, machine.id, phases.PROBE)
        probe = await stage_runs.unfinished(tx, machine.id, phases.Lane.GUEST)
        assert probe is not None
        await stage_runs.finish(tx, probe, "done")
        await machines.move(tx, machine.id, phases.ACTIVATE)
    connection = await ground.bus.daemon(machine.sandbox_id)
    await connection.publish(subjects.report_beat(machine.sandbox_id), b"{}")

    await _connection(ground, machine, phases.Connection.OFFLINE)

    assert [run.outcome for run in await ground.until(probes, bool)] == ["done", ""]


async def test_a_bus_that_was_down_takes_nobody_offline(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    """Beats that could not reach the registrar were taken for beats that were not made."""
    await _begin(ground, machine, phases.CLAIM, phases.BOOT, external="x")
    connection = await ground.bus.daemon(machine.sandbox_id)
    async with daemon_of(ground, machine.id) as daemon:
        await daemon.ready()
    async with asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        group.create_task(_beating(connection, machine, stop))
        await asyncio.sleep(2.5)  # the watcher knows by now who beats
        ground.nats.kill()
        await asyncio.sleep(2.5)  # more than two beats, and a look of the watcher's
        ground.nats.start()
        await asyncio.sleep(2.5)
        stop.set()

    async with ground.store.read() as tx:
        trail = await machines.get(tx, machine.id)
    assert (trail.connection, trail.seq) == (phases.Connection.ONLINE, 5)


async def test_a_machine_that_never_beat_once_is_offline_too(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    """A Redis that had heard no beat at all was taken for one that had just been emptied, for ever."""
    await _begin(ground, machine, phases.CLAIM, phases.BOOT, external="x")
    async with daemon_of(ground, machine.id) as daemon:
        await daemon.ready()

    silent = await _connection(ground, machine, phases.Connection.OFFLINE)

    assert silent.phase is phases.Phase.SETTING_UP
