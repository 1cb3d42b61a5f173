"""Whoever opens a channel learns how it ended or that it broke, in bounded time, and leaves nothing behind."""

import asyncio

import pytest

from paddock.bus import caller, channels, responder
from paddock.contracts import errors, rpc, subjects
from tests.support import connections, nats_server, peers, processes, talks
from tests.support.peers import CALL, ECHO, Text, TextBack

FRAME = rpc.FRAME_BYTES
WINDOW = rpc.FRAME_WINDOW
BROKEN_S = 5.0
"""Of real time, for what takes tenths of a second by the periods these tests give."""


async def test_a_fault_at_the_end_is_raised_after_the_frames_before_it(bus: connections.Connections) -> None:
    async def run(channel: channels.Channel) -> TextBack:
        await channel.send(b"before")
        raise errors.OutputLimit("cannot go on", data={"firstOffset": 7})

    async with talks.talking(bus, run) as channel:
        frame = await channel.receive()
        assert frame is not None
        assert bytes(frame.data) == b"before"
        with pytest.raises(errors.OutputLimit, match="cannot go on") as seen:
            await channel.receive()
        with pytest.raises(errors.OutputLimit):
            await channel.finish()
        with pytest.raises(errors.ChannelBroken, match="has ended"):
            await channel.send(b"to nobody")

    assert seen.value.data == {"firstOffset": 7}


async def test_a_fault_after_the_servers_last_frame_comes_from_finish(bus: connections.Connections) -> None:
    async def run(channel: channels.Channel) -> TextBack:
        await channel.send_eof()
        raise errors.DiskFull("cannot finish")

    async with talks.talking(bus, run) as channel:
        assert await channel.receive() is None
        with pytest.raises(errors.DiskFull, match="cannot finish"):
            await channel.finish()


async def test_a_refused_channel_is_an_ordinary_fault_and_nothing_is_left(
    bus: connections.Connections,
) -> None:
    async def refuses(_params: Text, _call: responder.CallContext) -> channels.Opened[TextBack, TextBack]:
        raise errors.PortRefused("nothing listens there")

    handler = responder.channel(talks.TALK, refuses)
    async with peers.machine(bus, handler) as machine, peers.asker(bus) as asks:
        with pytest.raises(errors.PortRefused, match="nothing listens there"):
            await talks.opened(asks)
        await processes.until(lambda: machine.calls.open_channels == 0)

        assert asks.in_flight == 0


async def test_a_channel_to_a_machine_that_is_not_there_is_offline_at_once(
    bus: connections.Connections,
) -> None:
    async with peers.asker(bus) as asks, asyncio.timeout(1):
        with pytest.raises(errors.MachineOffline):
            await talks.opened(asks, timeout_s=20)

        assert asks.in_flight == 0


async def test_a_method_that_opens_no_channel_here_is_not_found(bus: connections.Connections) -> None:
    async with peers.machine(bus, peers.ECHOES), peers.asker(bus) as asks:
        with pytest.raises(errors.MethodNotFound):
            await talks.opened(asks)


async def test_a_channel_to_anything_but_a_daemon_is_a_mistake(bus: connections.Connections) -> None:
    async with peers.asker(bus) as asks:
        with pytest.raises(ValueError, match="only daemons"):
            async with asks.open(subjects.REGISTRAR_CALL, talks.TALK, Text(), timeout_s=1):
                pass


async def test_an_opening_that_takes_too_long_is_stopped_on_both_sides(bus: connections.Connections) -> None:
    ended = asyncio.Event()

    async def never(_params: Text, _call: responder.CallContext) -> channels.Opened[TextBack, TextBack]:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    handler = responder.channel(talks.TALK, never)
    async with peers.machine(bus, handler) as machine, peers.asker(bus) as asks:
        with pytest.raises(errors.NoAnswer):
            await talks.opened(asks, timeout_s=0.1)
        async with asyncio.timeout(BROKEN_S):
            await ended.wait()
        await processes.until(lambda: machine.calls.open_channels == 0)

        assert asks.in_flight == 0


async def test_a_cancelled_opening_is_stopped_at_its_server(bus: connections.Connections) -> None:
    gate = peers.Gate()

    async def waits(params: Text, call: responder.CallContext) -> channels.Opened[TextBack, TextBack]:
        return channels.Opened(await gate.work(params, call), talks.echo)

    handler = responder.channel(talks.TALK, waits)
    async with peers.machine(bus, handler) as machine, peers.asker(bus) as asks:
        opening = asyncio.create_task(talks.opened(asks))
        await gate.until_entered(1)
        opening.cancel()
        await processes.until(lambda: machine.calls.open_channels == 0)

        assert gate.ended == ["hello"]
        assert asks.in_flight == 0


async def test_leaving_early_tells_the_server_to_stop(bus: connections.Connections) -> None:
    held = talks.Held()
    async with peers.machine(bus, talks.serves(held.run)) as machine, peers.asker(bus) as asks:
        async with talks.talk(asks):
            await processes.until(lambda: held.entered == 1)
        await processes.until(lambda: machine.calls.open_channels == 0)

        assert held.cancelled == 1
        assert asks.in_flight == 0


async def test_a_cancelled_opener_stops_its_server_though_frames_are_under_way(
    bus: connections.Connections,
) -> None:
    async def flood(channel: channels.Channel) -> TextBack:
        while True:
            await channel.send(b"x" * FRAME)

    async def take(asks: caller.Caller) -> None:
        async with talks.talk(asks) as channel:
            async for _ in channel:
                began.set()

    began = asyncio.Event()
    async with peers.machine(bus, talks.serves(flood), peers.ECHOES) as machine, peers.asker(bus) as asks:
        taking = asyncio.create_task(take(asks))
        await began.wait()
        taking.cancel()
        await processes.until(lambda: machine.calls.open_channels == 0)
        answer = await asks.call(CALL, ECHO, Text(text="goes on"), timeout_s=5)

        assert taking.cancelled()
        assert answer.text == "goes on"
        assert asks.in_flight == 0


async def test_an_error_in_the_openers_block_is_its_own_and_stops_the_server(
    bus: connections.Connections,
) -> None:
    held = talks.Held()
    async with peers.machine(bus, talks.serves(held.run)) as machine, peers.asker(bus) as asks:
        with pytest.raises(KeyError):
            async with talks.talk(asks):
                raise KeyError
        await processes.until(lambda: machine.calls.open_channels == 0)


async def test_frames_and_the_end_may_overtake_the_opening_reply(bus: connections.Connections) -> None:
    machine = talks.Server(await bus.daemon(peers.S))
    machine.says_first = [talks.frame(0, b"early"), talks.frame(1, b"too"), talks.end(2, "over")]
    await machine.start()
    async with peers.asker(bus) as asks, talks.talk(asks) as channel:
        assert channel.opened.text == "by hand"
        assert [bytes(frame.data) async for frame in channel] == [b"early", b"too"]
        assert channel.end.text == "over"


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ([talks.frame(1, b"x")], errors.ChannelBroken),
        ([talks.frame(0), talks.frame(0)], errors.ChannelBroken),
        ([talks.end(1)], errors.ChannelBroken),
        ([talks.frame(1, kind=rpc.FrameKind.KEEPALIVE)], errors.ChannelBroken),
        ([talks.frame(0, b"x" * (FRAME + 1))], errors.BadAnswer),
        ([talks.frame(number) for number in range(WINDOW + 1)], errors.BadAnswer),
        ([talks.frame(0, kind=rpc.FrameKind.EOF), talks.frame(1)], errors.BadAnswer),
        ([talks.frame(0, kind=254)], errors.BadAnswer),
        ([b""], errors.BadAnswer),
        ([b"\x00" * 12], errors.BadAnswer),
        ([talks.frame(0, b"", kind=rpc.FrameKind.END)], errors.BadAnswer),
        ([talks.frame(0, b'{"jsonrpc":"2.0"}', kind=rpc.FrameKind.END)], errors.BadAnswer),
        ([talks.frame(0, b'{"jsonrpc":"2.0","result":7}', kind=rpc.FrameKind.END)], errors.BadAnswer),
        ([talks.frame(0, b"\xff\xfe", kind=rpc.FrameKind.END)], errors.BadAnswer),
    ],
)
async def test_what_is_no_channel_breaks_it_for_whoever_waits_and_the_server_is_stopped(
    bus: connections.Connections, said: list[bytes], fault: type[errors.Fault]
) -> None:
    machine = talks.Server(await bus.daemon(peers.S))
    await machine.start()
    async with peers.asker(bus) as asks:
        async with talks.talk(asks) as channel:
            for message in said:
                await machine.say_raw(message)
            with pytest.raises(fault):
                await talks.soon(channel.finish())
        if not channel.is_over:
            await processes.until(lambda: any(one.stop for one in machine.credits))

        assert asks.in_flight == 0


async def test_what_had_arrived_before_it_broke_is_given_out_first(bus: connections.Connections) -> None:
    machine = talks.Server(await bus.daemon(peers.S))
    await machine.start()
    async with peers.asker(bus) as asks, talks.talk(asks) as channel:
        for message in (talks.frame(0, b"a"), talks.frame(1, b"b"), talks.frame(7, b"c")):
            await machine.say_raw(message)
        await processes.until(lambda: asks.in_flight == 1 and channel.fault is not None)
        got = [await channel.receive(), await channel.receive()]
        with pytest.raises(errors.ChannelBroken, match="a part was lost"):
            await channel.receive()

    assert [bytes(frame.data) for frame in got if frame is not None] == [b"a", b"b"]


async def test_another_machine_cannot_speak_on_the_channel(bus: connections.Connections) -> None:
    machine, stranger = await bus.daemon(peers.S), await bus.daemon("m2-1")
    serving = talks.Server(machine)
    await serving.start()
    async with peers.asker(bus) as asks, talks.talk(asks) as channel:
        request = serving.asked[-1]
        await stranger.publish(f"out.m2-1.{request.caller}.{request.id}", talks.frame(0, b"forged"))
        forged = f"out.{peers.S}.{request.caller}.{request.id}"
        await stranger.publish(forged, talks.frame(0, b"forged"))
        await bus.refused(forged)
        await serving.say(0, b"true")
        frame = await channel.receive()

        assert frame is not None
        assert bytes(frame.data) == b"true"


async def test_confirmations_that_were_lost_are_made_up_for_by_the_next_sign_of_life(
    bus: connections.Connections,
) -> None:
    machine = talks.Server(await bus.daemon(peers.S))
    await machine.start()
    async with peers.asker(bus) as asks, talks.talk(asks) as channel, asyncio.timeout(BROKEN_S):
        for _ in range(WINDOW):
            await channel.send(b"x")
        await machine.say(0, kind=rpc.FrameKind.KEEPALIVE, offset=2)
        await channel.send(b"y")
        await channel.send(b"z")
        await processes.until(lambda: len(machine.frames) == WINDOW + 2)

        # And it was answered with what we have taken, which is nothing yet.
        assert [one.received for one in machine.credits] == [0]


async def test_a_machine_that_is_killed_breaks_the_channel_for_whoever_receives(
    bus: connections.Connections,
) -> None:
    held = talks.Held()
    machine = peers.machine(bus, talks.serves(held.run))
    async with machine as serving, peers.asker(bus, probe_s=0.1) as asks, talks.talk(asks) as channel:
        await serving.client.close()
        with pytest.raises(errors.ChannelBroken, match="not connected"):
            await talks.soon(channel.receive())
        await processes.until(lambda: serving.calls.open_channels == 0)

    assert held.cancelled == 1
    assert asks.in_flight == 0


async def test_a_machine_that_is_killed_breaks_the_channel_for_whoever_sends(
    bus: connections.Connections,
) -> None:
    held = talks.Held()
    machine = peers.machine(bus, talks.serves(held.run))
    async with machine as serving, peers.asker(bus, probe_s=0.1) as asks, talks.talk(asks) as channel:
        await serving.client.close()
        for _ in range(WINDOW):
            await channel.send(b"x")
        with pytest.raises(errors.ChannelBroken, match="not connected"):
            await talks.soon(channel.send(b"one too many"))


async def test_a_machine_whose_daemon_was_restarted_does_not_know_the_channel(
    bus: connections.Connections,
) -> None:
    async with peers.asker(bus, probe_s=0.1) as asks:
        held = talks.Held()
        async with peers.machine(bus, talks.serves(held.run)) as killed, talks.talk(asks) as channel:
            await killed.client.close()
            async with peers.machine(bus, talks.serves(talks.echo)):
                with pytest.raises(errors.ChannelBroken, match="knows it no more"):
                    await talks.soon(channel.receive())
                async with talks.talk(asks) as again:
                    await again.send(b"again")
                    frame = await again.receive()

        assert frame is not None
        assert bytes(frame.data) == b"again"


async def test_a_server_that_says_nothing_at_all_is_gone_after_the_silence(
    bus: connections.Connections,
) -> None:
    machine = talks.Server(await bus.daemon(peers.S))
    await machine.start()
    async with peers.asker(bus, probe_s=0.05, silence_s=0.3) as asks, talks.talk(asks) as channel:
        with pytest.raises(errors.ChannelBroken, match="nothing was heard"):
            await talks.soon(channel.receive())

    # It was asked, in vain.
    assert any(params.kind == rpc.FrameKind.KEEPALIVE for params, _ in machine.frames)


async def test_a_server_with_nothing_to_say_is_asked_often_and_its_right_to_reply_lasts(
    bus: connections.Connections,
) -> None:
    held = talks.Held()
    probes = 0

    machine = peers.machine(bus, talks.serves(held.run), peers.ECHOES, silence_s=0.4)
    async with machine as serving, peers.asker(bus, probe_s=0.02, silence_s=0.4) as asks:
        listens = await bus.daemon(peers.S)

        async def count(_message: object) -> None:
            nonlocal probes
            probes += 1

        await listens.subscribe(CALL, cb=count)
        async with talks.talk(asks) as channel:
            taking = asyncio.create_task(channel.receive())
            await processes.until(lambda: probes >= 30)
            for _ in range(3):
                await asks.call(CALL, ECHO, Text(), timeout_s=5)
            assert not taking.done()
            assert serving.calls.open_channels == 1
            held.let_go.set()

            assert await taking is None
            assert channel.end.text == "let go"
    assert bus.refusals == []


async def test_a_bus_that_breaks_breaks_the_channel_at_both_ends_and_it_can_be_opened_again(
    bus: connections.Connections, server: nats_server.NatsServer
) -> None:
    held = talks.Held()
    asking = await bus.service("prober", pending_size=0)
    async with peers.machine(bus, talks.serves(held.run)) as machine, talks.asker(asking) as asks:
        async with talks.talk(asks) as channel, asyncio.timeout(BROKEN_S):
            await processes.until(lambda: held.channel is not None)
            assert held.channel is not None
            server.kill()
            with pytest.raises(errors.ChannelBroken):
                await channel.receive()
            with pytest.raises(errors.ChannelBroken):
                await channel.send(b"x")
            await processes.until(lambda: machine.calls.open_channels == 0)
            with pytest.raises(errors.ChannelBroken):
                await held.channel.receive()
        with pytest.raises(errors.BusDown):
            await talks.opened(asks)
        assert held.cancelled == 1
        assert asks.in_flight == 0

        server.restart()
        await processes.until(lambda: machine.client.is_connected and asking.is_connected)
        await asking.flush()
        await machine.client.flush()
        held.let_go.set()
        assert await talks.opened(asks) == "let go"


async def test_an_opener_cut_off_finds_its_channel_broken_and_when_it_is_back_the_server_stops(
    bus: connections.Connections,
) -> None:
    async def flood(channel: channels.Channel) -> TextBack:
        while True:
            await channel.send(b"x")

    asking = await bus.service("prober", pending_size=0)
    handler = talks.serves(flood)
    async with (
        peers.machine(bus, handler, keepalive_s=0.1) as machine,
        talks.asker(asking) as asks,
        asyncio.timeout(BROKEN_S),
    ):
        async with talks.talk(asks) as channel:
            await channel.receive()
            talks.cut(asking)
            with pytest.raises(errors.ChannelBroken, match="bus is not connected"):
                async for _ in channel:
                    pass
        # What the machine says on a channel that is no more is answered with stop.
        await processes.until(lambda: machine.calls.open_channels == 0)

        assert asks.in_flight == 0


async def test_a_machine_cut_off_stops_its_channels_and_the_opener_learns_it_when_it_asks(
    bus: connections.Connections,
) -> None:
    held = talks.Held()
    machine = peers.machine(bus, talks.serves(held.run))
    async with machine as serving, peers.asker(bus, probe_s=0.1) as asks, talks.talk(asks) as channel:
        await processes.until(lambda: held.entered == 1)
        talks.cut(serving.client)
        with pytest.raises(errors.ChannelBroken):
            await talks.soon(channel.receive())

        assert held.cancelled == 1
        assert serving.calls.open_channels == 0


async def test_a_caller_that_closes_ends_its_channels(bus: connections.Connections) -> None:
    held = talks.Held()
    asking = await bus.service("prober", pending_size=0)
    async with peers.machine(bus, talks.serves(held.run)):
        async with talks.asker(asking) as asks:
            opening = talks.talk(asks)
            channel = await opening.__aenter__()
        with pytest.raises(errors.ShuttingDown):
            await channel.receive()
        await opening.__aexit__(None, None, None)
        await processes.until(lambda: held.cancelled == 1)

        assert asks.in_flight == 0
