"""Starting and stopping: what was accepted is finished, what is new is refused, and the port must be free."""

import asyncio

import aiohttp
import pytest

from paddock.contracts import errors
from paddock.gateway import events_feed, machine_cache, manager, settings
from paddock.store import engine, machines
from tests.gateway import door
from tests.support import house


async def test_a_call_under_way_is_answered_although_the_gateway_stops(ground: house.House) -> None:
    async with door.opened(ground) as gateway:
        project = await gateway.project()
        async with asyncio.TaskGroup() as tasks:
            waits = tasks.create_task(gateway.call("machine.create", projectId=project, waitS=60))
            await ground.until(_machines, lambda count: count == 1)
            gateway.stop.set()
        made = waits.result()

    assert made["phase"] == "created"


async def _machines(tx: engine.Tx) -> int:
    return len(await machines.find(tx))


async def test_a_stopped_gateway_closes_its_sockets_and_listens_no_more(ground: house.House) -> None:
    async with door.opened(ground) as gateway, gateway.socket() as socket:
        gateway.stop.set()
        async with asyncio.timeout(5):
            await socket.ws.receive()
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask_until_refused(gateway)

    assert socket.ws.close_code == aiohttp.WSCloseCode.GOING_AWAY


async def ask_until_refused(gateway: door.Door) -> None:
    async with asyncio.timeout(5):
        while True:
            await gateway.http.get(f"{gateway.url}/healthz", headers={"Connection": "close"})


async def test_a_port_that_is_taken_is_said_to_be(gateway: door.Door) -> None:
    given = gateway.ground.settings_for(settings.Settings, gateway_port=int(gateway.url.rsplit(":", 1)[1]))

    with pytest.raises(ExceptionGroup) as failed:
        await manager.serve(gateway.context, given, asyncio.Event())

    [fault] = failed.value.exceptions
    assert isinstance(fault, errors.InvalidParams)
    assert "cannot listen on 127.0.0.1" in fault.message


async def test_a_machine_is_remembered_for_a_second_at_most(gateway: door.Door) -> None:
    machine = (await gateway.call("machine.create", projectId=await gateway.project()))["id"]
    cache = machine_cache.MachineCache(gateway.ground.store, kept_s=0.0)

    before = (await cache.get(machine)).phase
    await gateway.call("machine.delete", machineId=machine)

    assert (before, (await cache.get(machine)).phase) == ("created", "deleting")
    assert machine_cache.KEPT_S <= 1.0


async def test_what_was_read_before_an_event_is_not_remembered_after_it(gateway: door.Door) -> None:
    machine = (await gateway.call("machine.create", projectId=await gateway.project()))["id"]
    cache = machine_cache.MachineCache(gateway.ground.store, kept_s=60.0)

    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(cache.get(machine))
        await asyncio.sleep(0)
        cache.on_event(events_feed.Item(1, "machine.activated", "p1", machine, b""))
    await gateway.call("machine.delete", machineId=machine)

    assert reading.result().phase == "created"
    assert (await cache.get(machine)).phase == "deleting"


async def test_two_gateways_stop_independently(ground: house.House) -> None:
    async with door.opened(ground) as first:
        async with door.opened(ground) as second:
            assert await second.call("system.ping") == {"pong": True}
        assert await first.call("system.ping") == {"pong": True}
