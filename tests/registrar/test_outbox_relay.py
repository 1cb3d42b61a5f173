"""The relay: everything committed arrives, in order, whatever happens to the bus."""

import asyncio

import sqlalchemy as sa

from paddock.contracts import events, phases
from paddock.registrar import outbox_relay
from paddock.store import engine, machines, outbox, process, projects, schema
from tests.support import house


async def _arrived(ground: house.House, count: int, within_s: float = 10.0) -> list[events.Event]:
    """The first events of the stream."""
    js = (await ground.bus.onlooker()).jetstream()
    reader = await js.subscribe("machine.>", ordered_consumer=True)
    found: list[events.Event] = []
    async with asyncio.timeout(within_s):
        while len(found) < count:
            found.append(events.decode((await reader.next_msg(timeout=within_s)).data))
    return found


async def _waiting(tx: engine.Tx) -> tuple[int, int]:
    return await outbox.depth(tx)


async def test_what_was_committed_arrives_in_the_machines_order_and_is_marked_sent(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    async with ground.store.write(actor="test") as tx:
        for way in (phases.CLAIM, phases.BOOT, phases.SET_UP):
            await machines.move(tx, machine.id, way)

    arrived = await _arrived(ground, 4)

    assert [event.sequence for event in arrived] == [1, 2, 3, 4]
    assert await ground.until(_waiting, lambda depth: depth == (0, 0))


async def test_events_committed_while_the_bus_is_down_arrive_when_it_is_back(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    await ground.until(_waiting, lambda depth: depth == (0, 0))
    ground.nats.kill()
    async with ground.store.write(actor="test") as tx:
        await machines.move(tx, machine.id, phases.CLAIM)
    async with ground.store.read() as tx:
        assert await _waiting(tx) == (1, 0)

    ground.nats.start()

    arrived = await _arrived(ground, 2, within_s=20)
    assert [event.type for event in arrived] == [events.MACHINE_CREATED, events.MACHINE_PROVISIONING]


async def test_a_row_the_stream_refuses_is_parked_and_other_machines_go_on(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    huge = b"x" * (2 << 20)  # over the server's max_payload: refused every time
    async with ground.store.write(actor="test") as tx:
        await tx.execute(
            sa.insert(schema.outbox).values(
                event_id="huge", subject="machine.huge.p.other", lane="other", body=huge, created_at=tx.now_ms
            )
        )
        await machines.move(tx, machine.id, phases.CLAIM)

    await ground.until(_waiting, lambda depth: depth == (0, 1))

    assert [event.sequence for event in await _arrived(ground, 2)] == [1, 2]


async def test_only_one_of_two_relays_publishes_and_the_other_takes_over_at_a_stop(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    await _arrived(ground, 1)
    second = outbox_relay.Relay(registrar)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(second.run(stop))
        async with ground.store.write() as tx:
            await projects.create(tx, name="other", provider="process")
        await ground.until(_waiting, lambda depth: depth == (0, 0))
        stop.set()

    js = (await ground.bus.onlooker()).jetstream()
    info = await js.stream_info("EVENTS")
    assert info.state.messages == 3
