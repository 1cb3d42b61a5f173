"""Who serves a channel is let go of when its opener is, and nothing an opener says breaks more than its own channel."""

import asyncio
import logging
from typing import Any

import msgspec
import pytest

from paddock.bus import channels, responder
from paddock.contracts import errors, rpc
from tests.support import connections, peers, processes, talks
from tests.support.peers import CALL, ECHO, SLOW, Text, TextBack

FRAME = rpc.FRAME_BYTES
WINDOW = rpc.FRAME_WINDOW


async def test_an_opener_that_is_gone_is_noticed_after_the_silence(bus: connections.Connections) -> None:
    held = talks.Held()
    async with peers.machine(bus, talks.serves(held.run), keepalive_s=0.05, silence_s=0.3) as machine:
        gone = talks.Opener(await bus.service("gateway"))
        await gone.open()
        assert machine.calls.open_channels == 1
        await processes.until(lambda: machine.calls.open_channels == 0)

        assert held.cancelled == 1
        # It was told that we are there, and did not answer.
        assert len(gone.of(rpc.FrameKind.KEEPALIVE)) >= 2
        assert (await gone.end()).error is not None


async def test_an_opener_that_confirms_nothing_while_we_send_is_gone_after_the_silence(
    bus: connections.Connections,
) -> None:
    faults: list[errors.Fault | None] = []

    async def flood(channel: channels.Channel) -> TextBack:
        try:
            while True:
                await channel.send(b"x" * FRAME)
        finally:
            faults.append(channel.fault)

    async with peers.machine(bus, talks.serves(flood), keepalive_s=0.05, silence_s=0.2) as machine:
        gone = talks.Opener(await bus.service("gateway"))
        await gone.open()
        await processes.until(lambda: machine.calls.open_channels == 0)

    assert len(gone.of(rpc.FrameKind.DATA)) == WINDOW
    assert isinstance(faults[0], errors.ChannelBroken)


async def test_an_opener_that_waits_longer_than_the_silence_is_kept(bus: connections.Connections) -> None:
    held = talks.Held()
    machine = peers.machine(bus, talks.serves(held.run), keepalive_s=0.05, silence_s=0.2)
    # It does not ask by itself: that it answers is enough.
    async with machine as serving, peers.asker(bus, probe_s=60) as asks, talks.talk(asks) as channel:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.6):
                await channel.receive()
        assert serving.calls.open_channels == 1
        held.let_go.set()

        assert (await channel.finish()).text == "let go"


async def test_a_taker_that_is_slower_than_the_silence_is_kept(bus: connections.Connections) -> None:
    async def flood(channel: channels.Channel) -> TextBack:
        for number in range(WINDOW + 2):
            await channel.send(b"%d" % number)
        return TextBack(text="all")

    machine = peers.machine(bus, talks.serves(flood), keepalive_s=0.05, silence_s=0.2)
    async with machine as serving, peers.asker(bus) as asks, talks.talk(asks) as channel:
        await channel.receive()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await asyncio.Event().wait()
        assert serving.calls.open_channels == 1

        assert len([frame async for frame in channel]) == WINDOW + 1
        assert channel.end.text == "all"


@pytest.mark.parametrize("forged", [{"caller": "gateway-x2"}, {"request_id": "r2"}, {"caller": "*"}])
async def test_a_frame_in_the_name_of_another_is_passed_over(
    bus: connections.Connections, forged: dict[str, Any]
) -> None:
    async with peers.machine(bus, talks.serves(talks.echo)):
        opener = talks.Opener(await bus.service("gateway"))
        await opener.open()
        await opener.say(0, b"forged", **forged)
        await opener.say(0, b"true")
        await processes.until(lambda: opener.of(rpc.FrameKind.DATA))

        assert opener.of(rpc.FrameKind.DATA) == [(0, 1, 0, b"true")]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([{"index": 1}], errors.ChannelBroken.code),
        ([{"index": -1}], errors.ChannelBroken.code),
        ([{"index": 0}, {"index": 0}], errors.ChannelBroken.code),
        ([{"index": 0}, {"index": 2}], errors.ChannelBroken.code),
        ([{"index": 5, "kind": rpc.FrameKind.KEEPALIVE}], errors.ChannelBroken.code),
        ([{"index": number} for number in range(WINDOW + 1)], errors.BadAnswer.code),
        ([{"index": 0, "data": b"x" * (FRAME + 1)}], errors.BadAnswer.code),
        ([{"index": 0, "kind": rpc.FrameKind.END}], errors.BadAnswer.code),
        ([{"index": 0, "kind": rpc.FrameKind.CREDIT, "offset": 9}], errors.BadAnswer.code),
        ([{"index": 0, "kind": -1}], errors.BadAnswer.code),
        ([{"index": 0, "kind": 1000}], errors.BadAnswer.code),
        ([{"index": 0, "offset": -1}], errors.BadAnswer.code),
        ([{"index": 0, "kind": rpc.FrameKind.EOF}, {"index": 1}], errors.BadAnswer.code),
    ],
)
async def test_an_opener_that_breaks_the_rules_is_told_so_and_let_go_of(
    bus: connections.Connections, said: list[dict[str, Any]], code: int
) -> None:
    held = talks.Held()
    async with peers.machine(bus, talks.serves(held.run), peers.ECHOES) as machine, peers.asker(bus) as asks:
        opener = talks.Opener(await bus.service("gateway"))
        await opener.open()
        await processes.until(lambda: held.entered == 1)
        for members in said:
            await opener.say(**members)
        end = await opener.end()
        await processes.until(lambda: machine.calls.open_channels == 0)
        answer = await asks.call(CALL, ECHO, Text(text="goes on"), timeout_s=5)

        assert end.error is not None
        assert end.error.code == code
        assert held.cancelled == 1
        assert answer.text == "goes on"


async def test_credit_for_frames_that_were_not_sent_moves_nothing(bus: connections.Connections) -> None:
    async def flood(channel: channels.Channel) -> TextBack:
        for _ in range(3 * WINDOW):
            await channel.send(b"x")
        return TextBack()

    async with peers.machine(bus, talks.serves(flood), peers.ECHOES) as machine, peers.asker(bus) as asks:
        opener = talks.Opener(await bus.service("gateway"))
        await opener.open()
        await opener.credit(1000)
        await opener.credit(-1)
        for _ in range(3):
            await asks.call(CALL, ECHO, Text(), timeout_s=5)
        assert len(opener.of(rpc.FrameKind.DATA)) == WINDOW
        await opener.credit(WINDOW)
        await processes.until(lambda: len(opener.of(rpc.FrameKind.DATA)) == 2 * WINDOW)
        await opener.credit(0, stop=True)
        await processes.until(lambda: machine.calls.open_channels == 0)


async def test_what_comes_after_a_stop_is_passed_over_and_nothing_more_is_said(
    bus: connections.Connections,
) -> None:
    held = talks.Held()
    async with peers.machine(bus, talks.serves(held.run), peers.ECHOES) as machine, peers.asker(bus) as asks:
        opener = talks.Opener(await bus.service("gateway"))
        await opener.open()
        await opener.credit(0, stop=True)
        await processes.until(lambda: machine.calls.open_channels == 0)
        for index in range(3):
            await opener.say(index, b"late")
            await opener.credit(index)
        for _ in range(3):
            await asks.call(CALL, ECHO, Text(), timeout_s=5)

        assert held.cancelled == 1
        assert opener.frames == []


async def test_a_bug_ends_its_channel_without_its_text_and_is_found_in_the_log(
    bus: connections.Connections, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(channel: channels.Channel) -> TextBack:
        await channel.send(b"so far")
        raise KeyError("a secret detail")

    with caplog.at_level(logging.ERROR):
        async with talks.talking(bus, breaks) as channel:
            await channel.receive()
            with pytest.raises(errors.Internal) as seen:
                await channel.finish()

    assert "secret" not in seen.value.message + str(seen.value.data)
    record = next(one for one in caplog.records if one.getMessage() == "rpc_failed")
    assert record.facts["request_id"] == seen.value.data["requestId"]  # type: ignore[attr-defined]


async def test_a_fault_out_of_a_task_group_is_that_fault(bus: connections.Connections) -> None:
    async def refuses() -> None:
        raise errors.DiskFull("cannot go on")

    async def run(_channel: channels.Channel) -> TextBack:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(refuses())
        return TextBack()

    async with talks.talking(bus, run) as channel:
        with pytest.raises(errors.DiskFull, match="cannot go on"):
            await channel.finish()


async def test_a_bug_beside_a_fault_is_a_bug(bus: connections.Connections) -> None:
    async def run(_channel: channels.Channel) -> TextBack:
        raise ExceptionGroup("both", [errors.DiskFull(), KeyError("bug")])

    async with talks.talking(bus, run) as channel:
        with pytest.raises(errors.Internal):
            await channel.finish()


async def test_a_result_and_an_end_may_repeat_all_that_a_request_said(bus: connections.Connections) -> None:
    big = TextBack(text="x" * rpc.REQUEST_BYTES_MAX)

    async def begin(_params: Text, _call: responder.CallContext) -> channels.Opened[TextBack, TextBack]:
        async def run(_channel: channels.Channel) -> TextBack:
            return big

        return channels.Opened(big, run)

    async with peers.machine(bus, responder.channel(talks.TALK, begin)), peers.asker(bus) as asks:
        async with talks.talk(asks) as channel:
            end = await channel.finish()

        assert channel.opened == end == big


@pytest.mark.parametrize("where", ["result", "end"])
async def test_a_result_or_an_end_too_large_for_one_message_is_refused(
    bus: connections.Connections, where: str
) -> None:
    big = TextBack(text="x" * channels.WORD_BYTES_MAX)

    async def begin(_params: Text, _call: responder.CallContext) -> channels.Opened[TextBack, TextBack]:
        async def run(_channel: channels.Channel) -> TextBack:
            return big

        return channels.Opened(big if where == "result" else TextBack(), run)

    async with peers.machine(bus, responder.channel(talks.TALK, begin)) as machine, peers.asker(bus) as asks:
        with pytest.raises(errors.PayloadTooLarge):
            await talks.opened(asks)
        await processes.until(lambda: machine.calls.open_channels == 0)


async def test_draining_ends_open_channels_at_once_and_says_why(bus: connections.Connections) -> None:
    held = talks.Held()
    async with peers.machine(bus, talks.serves(held.run)) as machine, peers.asker(bus) as asks:
        async with talks.talk(asks) as channel, talks.talk(asks) as another:
            await processes.until(lambda: held.entered == 2)
            async with asyncio.timeout(5):
                await machine.calls.drain(60)
            with pytest.raises(errors.ShuttingDown):
                await talks.soon(channel.receive())
            with pytest.raises(errors.ShuttingDown):
                await talks.soon(another.receive())

        assert held.cancelled == 2
        assert machine.calls.open_channels == 0
        assert asks.in_flight == 0


async def test_draining_answers_channels_that_are_being_opened(bus: connections.Connections) -> None:
    gate = peers.Gate()

    async def waits(params: Text, call: responder.CallContext) -> channels.Opened[TextBack, TextBack]:
        return channels.Opened(await gate.work(params, call), talks.echo)

    async with peers.machine(bus, responder.channel(talks.TALK, waits)) as machine, peers.asker(bus) as asks:
        opening = asyncio.create_task(talks.opened(asks))
        await gate.until_entered(1)
        async with asyncio.timeout(5):
            await machine.calls.drain(60)
        with pytest.raises(errors.ShuttingDown):
            await opening


async def test_what_was_opened_is_handed_to_whoever_closes_it_though_the_opener_left_meanwhile(
    bus: connections.Connections,
) -> None:
    """Stopped between the opening and the serving, a file that was opened stayed open."""
    held = talks.Held()
    async with peers.machine(bus, talks.serves(held.run)) as machine:
        opener = talks.Opener(await bus.service("gateway"))
        publish, credit = machine.client.publish, machine.calls.credit_handler()

        async def publish_late(subject: str, *arguments: Any, **options: Any) -> None:
            params = rpc.CreditParams(caller=opener.caller_id, request_id=opener.request_id, stop=True)
            credit.work(params, None)  # type: ignore[arg-type]
            await publish(subject, *arguments, **options)

        machine.client.publish = publish_late
        await opener.open()
        await processes.until(lambda: machine.calls.open_channels == 0)

    assert (held.entered, held.cancelled) == (1, 1)


async def test_one_channel_too_many_is_refused_and_those_that_are_open_go_on(
    bus: connections.Connections,
) -> None:
    machine = peers.machine(bus, talks.serves(talks.echo), channels_max=2)
    async with machine, peers.asker(bus) as asks, talks.talk(asks) as one, talks.talk(asks):
        with pytest.raises(errors.TooManyInFlight, match="channels"):
            await talks.opened(asks)
        await one.send(b"goes on")
        frame = await one.receive()

        assert frame is not None


async def test_channels_do_not_take_the_places_of_calls_nor_calls_hold_up_frames(
    bus: connections.Connections,
) -> None:
    gate = peers.Gate()
    handlers = (talks.serves(talks.echo), responder.handler(SLOW, gate.work), peers.ECHOES)
    serving = peers.machine(bus, *handlers, max_in_flight=1)
    async with serving as machine, peers.asker(bus) as asks, talks.talk(asks) as channel:
        await asks.call(CALL, ECHO, Text(), timeout_s=5)
        calling = asyncio.create_task(asks.call(CALL, SLOW, Text(), timeout_s=5))
        await gate.until_entered(1)
        assert (machine.calls.in_flight, machine.calls.open_channels) == (1, 1)
        await channel.send(b"goes through")
        frame = await channel.receive()
        gate.is_open.set()
        await calling

    assert frame is not None
    assert bytes(frame.data) == b"goes through"


@pytest.mark.parametrize("members", [{"caller_id": ""}, {"caller_id": "a.b"}, {"request_id": "*"}])
async def test_an_opener_whose_names_are_no_tokens_is_refused(
    bus: connections.Connections, members: dict[str, str]
) -> None:
    async with peers.machine(bus, talks.serves(talks.echo)) as machine:
        opener = talks.Opener(await bus.service("gateway"), **members)
        answer = await opener.ask()

        assert answer.error is not None
        assert answer.error.code == errors.InvalidRequest.code
        assert machine.calls.open_channels == 0


async def test_a_channel_is_not_opened_twice_under_one_name(bus: connections.Connections) -> None:
    async with peers.machine(bus, talks.serves(talks.echo)) as machine:
        opener = talks.Opener(await bus.service("gateway"))
        await opener.open()
        again = await opener.ask()

        assert again.error is not None
        assert again.error.code == errors.InvalidRequest.code
        assert machine.calls.open_channels == 1


async def test_frames_are_no_method_where_no_channels_are_served(bus: connections.Connections) -> None:
    client = await bus.service("prober")
    params = rpc.FrameParams(caller="a", request_id="r", index=0, kind=1)
    request = rpc.Request(id=1, method=rpc.FRAME.name, params=msgspec.Raw(msgspec.json.encode(params)))
    async with peers.machine(bus, peers.ECHOES):
        message = await client.request(CALL, msgspec.json.encode(request), timeout=5)
        answer = msgspec.json.decode(message.data, type=rpc.Response)

    assert answer.error is not None
    assert answer.error.code == errors.MethodNotFound.code


async def test_when_no_channel_is_open_nothing_runs_and_nobody_watches(bus: connections.Connections) -> None:
    async with peers.machine(bus, talks.serves(talks.echo)) as machine, peers.asker(bus) as asks:
        # The first one also subscribes for frames, once.
        await talks.said(asks, b"x")
        before = len(asyncio.all_tasks())
        for _ in range(20):
            await talks.said(asks, b"x")
        await processes.until(lambda: machine.calls.open_channels == 0)
        await processes.until(lambda: len(asyncio.all_tasks()) <= before)

        assert machine.client._lost_listeners == []
