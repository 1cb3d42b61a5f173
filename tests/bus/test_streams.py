"""EVENTS, DEADLETTERS and the consumers of the stages."""

import asyncio

import pytest
from nats.js import api

from paddock.bus import safeclient, streams
from paddock.contracts import events, ids, subjects
from tests.support import connections, nats_server

P1, P2, M1 = ids.ProjectId("p1"), ids.ProjectId("p2"), ids.MachineId("m1")


def event(event_id: str, project: ids.ProjectId, event_type: str = events.MACHINE_CREATED) -> events.Event:
    return events.new(event_type, event_id=event_id, at_ms=0, project=project, machine=M1)


async def publish(registrar: safeclient.SafeClient, *wanted: events.Event) -> None:
    """As the outbox does."""
    for one in wanted:
        await registrar.jetstream().publish(
            one.nats_subject(), events.encode(one), headers={"Nats-Msg-Id": one.id}
        )


async def test_ensure_may_run_again_and_at_the_same_time(bus: connections.Connections) -> None:
    first, second = await bus.service("bootstrap"), await bus.service("bootstrap")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(streams.ensure(first.jetstream()))
        tasks.create_task(streams.ensure(second.jetstream()))
    await streams.ensure(first.jetstream())

    js = (await bus.onlooker()).jetstream()
    assert {one.config.name for one in await js.streams_info()} == {"EVENTS", "DEADLETTERS"}
    assert {one.name for one in await js.consumers_info("EVENTS")} == {
        "provisioner",
        "setup_pusher",
        "prober",
    }
    assert bus.refusals == []


async def test_ensure_brings_what_is_old_up_to_date_and_keeps_its_messages(
    bus: connections.Connections,
) -> None:
    looker = (await bus.onlooker()).jetstream()
    await looker.add_stream(api.StreamConfig(name="EVENTS", subjects=["machine.*.*.*"], max_age=60))
    await looker.publish("machine.created.p1.m1", b"old")
    await looker.add_consumer("EVENTS", api.ConsumerConfig(durable_name="prober", ack_wait=1, max_deliver=3))

    await streams.ensure((await bus.service("bootstrap")).jetstream())

    info, prober = await looker.stream_info("EVENTS"), await looker.consumer_info("EVENTS", "prober")
    assert (info.config.max_age, info.state.messages) == (streams.EVENTS_KEPT_S, 1)
    assert (prober.config.ack_wait, prober.config.max_deliver) == (streams.ACK_WAIT_S, -1)


async def test_each_stage_hears_what_wakes_it_and_nothing_else(ready_bus: connections.Connections) -> None:
    every = [event(f"e{number}", P1, event_type) for number, event_type in enumerate(events.ALL)]
    await publish(await ready_bus.service("registrar"), *every)

    js = (await ready_bus.onlooker()).jetstream()
    for durable, wakes in streams.WAKES.items():
        waiting = await js.pull_subscribe_bind(durable, stream="EVENTS")
        heard = [events.decode(message.data).type for message in await waiting.fetch(len(wakes), timeout=5)]
        assert sorted(heard) == sorted(wakes)
        assert (await js.consumer_info("EVENTS", durable)).num_pending == 0


async def test_an_event_published_twice_is_kept_and_told_once(ready_bus: connections.Connections) -> None:
    registrar, monitor = await ready_bus.service("registrar"), await ready_bus.monitor("p1")
    told = await monitor.subscribe(subjects.monitor(P1))
    await monitor.flush()

    await publish(registrar, event("e1", P1), event("e1", P1), event("e2", P1))

    seen = [events.decode((await told.next_msg(timeout=5)).data).id for _ in range(2)]
    assert seen == ["e1", "e2"]
    assert (await registrar.jetstream().stream_info("EVENTS")).state.messages == 2
    await monitor.flush()
    assert told.pending_msgs == 0


async def test_a_monitor_sees_only_its_projects_stored_events(ready_bus: connections.Connections) -> None:
    registrar, monitor = await ready_bus.service("registrar"), await ready_bus.monitor("p1")
    told = await monitor.subscribe(subjects.monitor(P1))
    await monitor.flush()

    await publish(registrar, event("other", P2), event("mine", P1))
    await publish(registrar, events.new(events.PROJECT_UPDATED, event_id="all", at_ms=0, project=P1))

    first, second = await told.next_msg(timeout=5), await told.next_msg(timeout=5)
    assert [first.subject, second.subject] == ["mon.p1.machine.created.m1", "mon.p1.project.updated.all"]
    assert [events.decode(one.data).id for one in (first, second)] == ["mine", "all"]
    # What a reader needs to go on from here with a stored cursor.
    assert (first.headers or {})["Nats-Sequence"] == "2"
    assert told.pending_msgs == 0


async def test_a_gateway_replays_what_is_stored_and_then_hears_what_is_new(
    ready_bus: connections.Connections,
) -> None:
    registrar, gateway = await ready_bus.service("registrar"), await ready_bus.service("gateway")
    await publish(registrar, event("e1", P1), event("e2", P1))
    config = api.ConsumerConfig(
        name="gateway-1", deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=2
    )

    replay = await gateway.jetstream().subscribe(
        "machine.>", stream="EVENTS", ordered_consumer=True, config=config
    )
    replayed = await replay.next_msg(timeout=5)
    await publish(registrar, event("e3", P1))
    live = await replay.next_msg(timeout=5)

    assert [events.decode(one.data).id for one in (replayed, live)] == ["e2", "e3"]
    assert ready_bus.refusals == []


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_an_acknowledged_event_outlives_the_server(
    server: nats_server.NatsServer, ready_bus: connections.Connections, how: str
) -> None:
    registrar = await ready_bus.service("registrar")
    back = asyncio.Event()
    registrar.watch(restored=back.set)
    await publish(registrar, event("e1", P1))

    if how == "kill":
        server.kill()
        server.start()
    else:
        server.restart()
    async with asyncio.timeout(10):
        await back.wait()
    await publish(registrar, event("e1", P1), event("e2", P1))

    assert (await registrar.jetstream().stream_info("EVENTS")).state.messages == 2
