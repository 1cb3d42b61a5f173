import asyncio

import pytest

from paddock.client import client as gateway_client
from paddock.client import websocket
from paddock.contracts import errors, events
from tests.support import fake_gateway


async def take(feed: websocket.EventFeed, count: int) -> list[str]:
    """The ids of the next events."""
    async with asyncio.timeout(5):
        return [(await anext(feed)).event.id for _ in range(count)]


def happen(gateway: fake_gateway.FakeGateway, times: int = 1, project: str = "p1") -> None:
    for _ in range(times):
        gateway.fleet.happen(events.PROJECT_UPDATED, project=project)


async def test_events_come_typed_and_in_order(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    async with client.events() as feed:
        machine = gateway.fleet.add_machine(gateway.fleet.add_project().id)
        gateway.fleet.to_active(machine.id)
        async with asyncio.timeout(5):
            received = [await anext(feed) for _ in range(6)]

    assert [one.event.type for one in received][:2] == [events.MACHINE_CREATED, events.MACHINE_PROVISIONING]
    assert [one.event.sequence for one in received] == [1, 2, 3, 4, 5, 6]
    assert received[-1].event.data["phase"] == "active"
    assert received[-1].cursor == feed.cursor == "e1-6"


async def test_what_happened_before_is_not_told(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    happen(gateway, 3)

    async with client.events() as feed:
        happen(gateway)

        assert await take(feed, 1) == ["ev4"]


async def test_a_cursor_gives_what_was_missed_first(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    happen(gateway, 3)

    async with client.events(cursor="e1-1") as feed:
        happen(gateway)

        assert await take(feed, 3) == ["ev2", "ev3", "ev4"]


async def test_only_what_fits_everything_given_comes(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    async with client.events(project_id="p2", types=[events.PROJECT_UPDATED]) as feed:
        happen(gateway, 2, project="p1")
        gateway.fleet.happen(events.PROJECT_CREATED, project="p2")
        happen(gateway, project="p2")

        assert await take(feed, 1) == ["ev4"]


async def test_a_cut_link_misses_nothing_and_repeats_nothing(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    async with client.events() as feed:
        happen(gateway, 2)
        before = await take(feed, 2)
        gateway.cut_links()
        happen(gateway, 2)
        after = await take(feed, 2)

    assert before + after == ["ev1", "ev2", "ev3", "ev4"]
    assert [asked.cursor for asked in gateway.subscribed] == [None, "e1-2"]


async def test_a_link_cut_before_any_event_goes_on_where_it_began(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    happen(gateway)
    async with client.events() as feed:
        gateway.cut_links()
        happen(gateway)

        assert await take(feed, 1) == ["ev2"]
    assert gateway.subscribed[1].cursor == "e1-1"


async def test_a_restarted_gateway_is_followed_further(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    async with client.events() as feed:
        await gateway.stop()
        happen(gateway)
        gateway.troubles["ws"].append("not ready")
        await gateway.start()

        assert await take(feed, 1) == ["ev1"]


async def test_a_gateway_that_stays_away_ends_the_patience(gateway: fake_gateway.FakeGateway) -> None:
    async with (
        gateway_client.Client(gateway.url, gateway.token) as client,
        client.events(patience_s=0.05) as feed,
    ):
        await gateway.stop()

        with pytest.raises(errors.GatewayUnreachable):
            await anext(feed)


async def test_who_follows_a_gateway_that_is_not_there_is_told_at_once(
    gateway: fake_gateway.FakeGateway,
) -> None:
    await gateway.stop()

    async with gateway_client.Client(gateway.url, gateway.token) as client:
        with pytest.raises(errors.GatewayUnreachable):
            await anext(client.events())


async def test_a_wrong_token_is_refused(gateway: fake_gateway.FakeGateway) -> None:
    async with gateway_client.Client(gateway.url, "pdk_other") as client:
        with pytest.raises(errors.Unauthenticated):
            await anext(client.events())


async def test_an_old_cursor_is_a_fault_that_says_what_is_kept(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    happen(gateway, 9)
    gateway.first_kept = 7

    with pytest.raises(errors.CursorExpired) as caught:
        await anext(client.events(cursor="e1-2"))
    assert caught.value.data["first"] == 7


async def test_a_subscription_that_ended_for_a_while_is_made_again(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    async with client.events() as feed:
        gateway.troubles["events"].append(errors.BusDown())
        happen(gateway, 1)
        await take(feed, 1)
        happen(gateway, 1)

        assert await take(feed, 1) == ["ev2"]
    assert len(gateway.subscribed) == 2


async def test_a_subscription_that_ended_for_good_is_a_fault(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    async with client.events() as feed:
        gateway.troubles["events"].append(errors.CursorExpired("cannot follow any further: made anew"))
        happen(gateway, 1)
        await take(feed, 1)

        with pytest.raises(errors.CursorExpired, match="made anew"):
            await take(feed, 1)


async def test_waiting_can_be_cancelled_and_taken_up_again(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    async with client.events() as feed:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(feed)
        happen(gateway)

        assert await take(feed, 1) == ["ev1"]
    assert len(gateway.subscribed) == 1
