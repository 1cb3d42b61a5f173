"""Calls over a socket, and following events: what was missed, then everything new, in order and once."""

import asyncio
import json

import pytest

from paddock.bus import lifecycle
from paddock.contracts import events, phases
from paddock.gateway import events_feed, subscriptions, websocket
from paddock.store import projects
from tests.gateway import door, relay


async def test_a_socket_answers_calls_like_http(gateway: door.Door) -> None:
    async with gateway.socket() as socket:
        pong = await socket.call("system.ping")
        missing = await socket.call("machine.get", machineId="m0")
        await socket.ws.send_str("nope")
        broken = await socket.ws.receive_json()
        await socket.ws.send_str('[{"jsonrpc":"2.0","id":9,"method":"system.ping"}]')
        batch = await socket.ws.receive_json()

    assert pong["result"] == {"pong": True}
    assert missing["error"]["data"]["kind"] == "not_found"
    assert broken["error"]["code"] == -32700
    assert batch == [{"jsonrpc": "2.0", "id": 9, "result": {"pong": True}}]


async def test_a_slow_call_does_not_hold_up_the_next(gateway: door.Door) -> None:
    project = await gateway.project()
    async with gateway.socket() as socket:
        await socket.ws.send_json(
            {
                "jsonrpc": "2.0",
                "id": "slow",
                "method": "machine.create",
                "params": {"projectId": project, "waitS": 0.3},
            }
        )
        quick = await socket.call("system.ping")

    assert quick["result"] == {"pong": True}
    assert socket.notifications == [], "the slow one was not answered before it"


async def test_following_is_not_possible_over_plain_http(gateway: door.Door) -> None:
    assert (await gateway.refused("events.subscribe"))["code"] == -32600


async def test_new_events_come_as_they_happen(gateway: door.Door) -> None:
    async with gateway.socket() as socket:
        began = (await socket.call("events.subscribe"))["result"]
        project = await gateway.project()
        await relay.send_all(gateway.ground)
        told = await socket.next()

    assert told["subscription"] == began["subscription"]
    assert (told["event"]["type"], told["event"]["projectid"]) == ("project.created", project)
    assert events.decode(json.dumps(told["event"]).encode()).specversion == "1.0"
    assert told["cursor"] != began["cursor"]


async def test_a_cursor_goes_on_where_it_was_and_then_lives_on(gateway: door.Door) -> None:
    async with gateway.socket() as socket:
        start = (await socket.call("events.subscribe"))["result"]["cursor"]
    async with gateway.ground.store.write() as tx:
        made = [(await projects.create(tx, name="x", provider="process")).id for _ in range(300)]
    await relay.send_all(gateway.ground)

    async with gateway.socket() as socket:
        await socket.call("events.subscribe", cursor=start)
        told = [await socket.next() for _ in range(200)]
    async with gateway.socket() as socket:
        await socket.call("events.subscribe", cursor=told[-1]["cursor"])
        told += [await socket.next() for _ in range(100)]
        live = await gateway.project(name="live")
        await relay.send_all(gateway.ground)
        told.append(await socket.next())

    assert [one["event"]["projectid"] for one in told] == [*made, live]


async def test_only_what_fits_is_told(gateway: door.Door) -> None:
    machine = await gateway.machine_in(phases.Phase.ACTIVE)
    other = await gateway.machine_in(phases.Phase.ACTIVE)
    async with gateway.socket() as socket:
        start = (await socket.call("events.subscribe"))["result"]["cursor"].rsplit("-", 1)[0] + "-0"
    await relay.send_all(gateway.ground)
    project = (await gateway.call("machine.get", machineId=other))["projectId"]

    async with gateway.socket() as socket:
        kinds = ["machine.activated", "machine.created"]
        by_machine = (await socket.call("events.subscribe", machineId=machine, types=kinds, cursor=start))[
            "result"
        ]
        by_project = (await socket.call("events.subscribe", projectId=project, types=kinds, cursor=start))[
            "result"
        ]
        told = [await socket.next() for _ in range(4)]

    def of(subscription: dict[str, str]) -> list[tuple[str, str]]:
        mine = [one["event"] for one in told if one["subscription"] == subscription["subscription"]]
        return [(event["type"], event["machineid"]) for event in mine]

    assert of(by_machine) == [("machine.created", machine), ("machine.activated", machine)]
    assert of(by_project) == [("machine.created", other), ("machine.activated", other)]


async def test_what_is_unsubscribed_is_not_told(gateway: door.Door) -> None:
    async with gateway.socket() as socket:
        first = (await socket.call("events.subscribe"))["result"]["subscription"]
        second = (await socket.call("events.subscribe"))["result"]["subscription"]
        await socket.call("events.unsubscribe", subscription=first)
        again = await socket.call("events.unsubscribe", subscription=first)
        await gateway.project()
        await relay.send_all(gateway.ground)
        told = await socket.next()
        await socket.call("system.ping")

    assert told["subscription"] == second
    assert socket.notifications == []
    assert again["error"]["data"]["kind"] == "not_found"


@pytest.mark.parametrize("cursor", ["0-5", "{epoch}-999999"])
async def test_a_cursor_of_another_stream_or_of_the_future_is_expired(
    gateway: door.Door, cursor: str
) -> None:
    async with gateway.socket() as socket:
        epoch = (await socket.call("events.subscribe"))["result"]["cursor"].split("-")[0]
        refused = await socket.call("events.subscribe", cursor=cursor.format(epoch=epoch))

    assert (refused["error"]["code"], refused["error"]["data"]["kind"]) == (3003, "cursor_expired")


async def test_a_cursor_older_than_what_is_kept_is_expired(gateway: door.Door) -> None:
    for number in range(5):
        await gateway.project(name=f"p{number}")
    await relay.send_all(gateway.ground)
    async with gateway.socket() as socket:
        epoch = (await socket.call("events.subscribe"))["result"]["cursor"].split("-")[0]
        js = (await gateway.ground.bus.onlooker()).jetstream()
        await js.purge_stream("EVENTS", keep=2)
        refused = await socket.call("events.subscribe", cursor=f"{epoch}-1")
        kept = await socket.call("events.subscribe", cursor=f"{epoch}-3")

    assert refused["error"]["data"] == {
        "kind": "cursor_expired", "retryable": False, "epoch": epoch, "first": 4, "last": 5,
    }  # fmt: skip
    assert "result" in kept


async def test_events_stored_while_the_bus_was_away_are_told_when_it_is_back(gateway: door.Door) -> None:
    async with gateway.socket() as socket:
        await socket.call("events.subscribe")
        made = [await gateway.project(name="before")]
        await relay.send_all(gateway.ground)
        told = [await socket.next()]
        gateway.ground.nats.restart()
        made += [await gateway.project(name=f"after-{number}") for number in range(3)]
        await relay.send_all(gateway.ground)
        told += [await socket.next() for _ in range(3)]

    assert [one["event"]["projectid"] for one in told] == made


async def test_a_connection_follows_only_so_much(gateway: door.Door) -> None:
    async with gateway.socket() as socket:
        for _ in range(subscriptions.SUBSCRIPTIONS_MAX):
            assert "result" in await socket.call("events.subscribe")
        refused = await socket.call("events.subscribe")

    assert refused["error"]["data"]["kind"] == "too_many_in_flight"


async def test_a_message_that_is_too_large_ends_the_connection_with_the_reason(gateway: door.Door) -> None:
    async with gateway.socket() as socket:
        await socket.ws.send_str(" " * (2 * 1024 * 1024 + 1))
        async with asyncio.timeout(5):
            await socket.ws.receive()

    assert socket.ws.close_code == 1009


async def test_a_socket_whose_token_ends_is_closed(
    gateway: door.Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "TOKEN_CHECK_S", 0.05)
    token_id = (await gateway.call("token.list"))["tokens"][0]["id"]

    async with gateway.socket() as socket:
        await gateway.call("token.revoke", tokenId=token_id)
        async with asyncio.timeout(5):
            await socket.ws.receive()

    assert socket.ws.close_code == websocket.TOKEN_ENDED


async def test_a_slow_follower_reads_from_the_stream_and_misses_nothing(gateway: door.Door) -> None:
    """The feed keeps two events in memory; a follower that is five behind gets all of them."""
    feed = events_feed.EventsFeed(gateway.context.stream, kept=2)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(feed.run(stop))
        async with asyncio.timeout(5):
            while not feed.is_live:
                await lifecycle.pause(0.005, asyncio.Event())
        follower = feed.follow(events_feed.Wanted(), epoch=feed.epoch, after=feed.head)
        made = [await gateway.project(name=f"p{number}") for number in range(7)]
        await relay.send_all(gateway.ground)
        async with asyncio.timeout(5):
            told = [json.loads((await anext(follower))[1])["projectid"] for _ in made]
        await follower.aclose()
        stop.set()

    assert told == made
