"""`connection`: online with the first beat, offline after two missed, and never a false alarm."""

import asyncio

from paddock.bus import safeclient
from paddock.contracts import phases, subjects
from paddock.store import engine, machines, process
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
