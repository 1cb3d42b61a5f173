"""Frames go both ways in order, under credit, and a slow taker slows nobody but its own channel."""

import asyncio
import hashlib

import pytest

from paddock.bus import caller, channels
from paddock.contracts import errors, rpc
from tests.support import connections, peers, processes, talks
from tests.support.peers import CALL, ECHO, Text, TextBack

FRAME = rpc.FRAME_BYTES
WINDOW = rpc.FRAME_WINDOW


async def test_frames_go_out_and_come_back_and_the_end_says_how(bus: connections.Connections) -> None:
    async with peers.machine(bus, talks.serves(talks.echo)) as machine, peers.asker(bus) as asks:
        async with talks.talk(asks) as channel:
            await channel.send(b"one", kind=rpc.FrameKind.STDERR, offset=7)
            await channel.send(b"two", offset=10)
            await channel.send_eof()
            frames = [(one.kind, one.offset, bytes(one.data)) async for one in channel]

            assert channel.opened.text == "hello"
            assert frames == [(2, 7, b"one"), (1, 10, b"two")]
            assert channel.end.text == "6"
        await processes.until(lambda: machine.calls.open_channels == 0)
        assert asks.in_flight == 0
    assert bus.refusals == []


async def test_what_was_sent_in_one_direction_arrives_byte_for_byte(bus: connections.Connections) -> None:
    body = bytes(range(256)) * (40 * FRAME // 256)

    async def send_all(channel: channels.Channel) -> TextBack:
        for start in range(0, len(body), FRAME):
            await channel.send(memoryview(body)[start : start + FRAME], offset=start)
        return TextBack(text=hashlib.sha256(body).hexdigest())

    digest = hashlib.sha256()
    async with talks.talking(bus, send_all) as channel:
        async for frame in channel:
            digest.update(frame.data)

        assert channel.end.text == digest.hexdigest()


async def test_both_directions_carry_much_at_the_same_time(bus: connections.Connections) -> None:
    count = 30

    async def send_all(channel: channels.Channel, data: bytes) -> None:
        for _ in range(count):
            await channel.send(data)
        await channel.send_eof()

    async def take_all(channel: channels.Channel) -> int:
        return sum([len(frame.data) async for frame in channel])

    async def both(channel: channels.Channel, data: bytes) -> int:
        async with asyncio.TaskGroup() as tasks:
            taking = tasks.create_task(take_all(channel))
            tasks.create_task(send_all(channel, data))
        return taking.result()

    async def run(channel: channels.Channel) -> TextBack:
        return TextBack(text=str(await both(channel, b"s" * 1000)))

    async with talks.talking(bus, run) as channel, asyncio.timeout(10):
        taken = await both(channel, b"o" * FRAME)
        end = await channel.finish()

    assert taken == count * 1000
    assert end.text == str(count * FRAME)


async def test_a_server_that_sends_no_more_goes_on_listening(bus: connections.Connections) -> None:
    async def run(channel: channels.Channel) -> TextBack:
        await channel.send(b"all I have")
        await channel.send_eof()
        return TextBack(text=str([bytes(frame.data) async for frame in channel]))

    async with talks.talking(bus, run) as channel:
        assert [bytes(one.data) async for one in channel] == [b"all I have"]
        assert await channel.receive() is None
        with pytest.raises(RuntimeError, match="finish"):
            assert channel.end.text
        await channel.send(b"heard")
        await channel.send_eof()
        await channel.send_eof()
        end = await channel.finish()

    assert end.text == "[b'heard']"


async def test_after_the_end_of_a_direction_was_said_nothing_can_be_sent(
    bus: connections.Connections,
) -> None:
    async with talks.talking(bus, talks.echo) as channel:
        await channel.send_eof()
        with pytest.raises(ValueError, match="end of this direction"):
            await channel.send(b"more")


async def test_after_the_end_of_the_channel_sending_is_refused(bus: connections.Connections) -> None:
    async def run(_channel: channels.Channel) -> TextBack:
        return TextBack(text="at once")

    async with talks.talking(bus, run) as channel:
        assert (await channel.finish()).text == "at once"
        with pytest.raises(errors.ChannelBroken, match="has ended"):
            await channel.send(b"too late")
        with pytest.raises(errors.ChannelBroken, match="has ended"):
            await channel.send_eof()


async def test_no_more_than_the_window_is_sent_until_the_taker_asks_for_the_next(
    bus: connections.Connections,
) -> None:
    sent = 0

    async def run(channel: channels.Channel) -> TextBack:
        nonlocal sent
        for number in range(3 * WINDOW):
            await channel.send(b"%d" % number)
            sent += 1
        return TextBack()

    machine = peers.machine(bus, talks.serves(run), peers.ECHOES)
    async with machine, peers.asker(bus) as asks, talks.talk(asks) as channel:
        # Whatever was said before these answers has been heard.
        for _ in range(3):
            await asks.call(CALL, ECHO, Text(), timeout_s=5)
        assert sent == WINDOW
        await channel.receive()
        for _ in range(3):
            await asks.call(CALL, ECHO, Text(), timeout_s=5)
        assert sent == WINDOW
        await channel.receive()
        await processes.until(lambda: sent == WINDOW + 1)
        rest = [bytes(frame.data) async for frame in channel]

    assert rest == [b"%d" % number for number in range(2, 3 * WINDOW)]


async def test_an_opener_waits_for_a_server_that_takes_nothing(bus: connections.Connections) -> None:
    held = talks.Held()
    async with talks.talking(bus, held.run) as channel:
        for _ in range(WINDOW):
            await channel.send(b"x" * FRAME)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await channel.send(b"one too many")
        held.let_go.set()

        assert (await channel.finish()).text == "let go"


async def test_a_slow_taker_slows_neither_other_channels_nor_calls(bus: connections.Connections) -> None:
    async def flood(channel: channels.Channel) -> TextBack:
        for _ in range(40):
            await channel.send(b"x" * FRAME)
        return TextBack()

    async with (
        peers.machine(bus, talks.serves(flood), peers.ECHOES),
        peers.asker(bus) as asks,
        talks.talk(asks) as slow,
        talks.talk(asks) as quick,
    ):
        await slow.receive()
        assert len([frame async for frame in quick]) == 40
        answer = await asks.call(CALL, ECHO, Text(text="quick"), timeout_s=2)
        assert answer.text == "quick"
        assert len([frame async for frame in slow]) == 39


async def test_sixty_four_channels_at_once_do_not_mix(bus: connections.Connections) -> None:
    async def one(asks: caller.Caller, number: int) -> list[bytes]:
        async with talks.talk(asks) as channel:
            for part in range(10):
                await channel.send(b"%d.%d" % (number, part))
            await channel.send_eof()
            return [bytes(frame.data) async for frame in channel]

    async def run(channel: channels.Channel) -> TextBack:
        frames = [frame async for frame in channel]
        for frame in frames:
            await channel.send(frame.data)
        return TextBack()

    async with peers.machine(bus, talks.serves(run)) as machine, peers.asker(bus) as asks:
        async with asyncio.TaskGroup() as tasks:
            talking = [tasks.create_task(one(asks, number)) for number in range(64)]
        await processes.until(lambda: machine.calls.open_channels == 0)

        assert asks.in_flight == 0
    for number, task in enumerate(talking):
        assert task.result() == [b"%d.%d" % (number, part) for part in range(10)]


async def test_many_may_send_on_one_channel(bus: connections.Connections) -> None:
    async with talks.talking(bus, talks.echo) as channel, asyncio.TaskGroup() as tasks:
        sending = [tasks.create_task(channel.send(b"%d" % number)) for number in range(50)]
        seen: set[bytes] = set()
        while len(seen) < 50:
            frame = await channel.receive()
            assert frame is not None
            seen.add(bytes(frame.data))

    assert seen == {b"%d" % number for number in range(50)}
    assert all(task.done() for task in sending)


async def test_a_frame_that_is_too_large_is_not_sent_and_breaks_nothing(bus: connections.Connections) -> None:
    async with talks.talking(bus, talks.echo) as channel:
        with pytest.raises(errors.PayloadTooLarge, match="cannot send a frame"):
            await channel.send(b"x" * (FRAME + 1))
        await channel.send(b"x" * FRAME)
        frame = await channel.receive()

        assert frame is not None
        assert len(frame.data) == FRAME


@pytest.mark.parametrize("kind", [-1, rpc.FrameKind.KEEPALIVE, rpc.FrameKind.EOF, rpc.FrameKind.END, 254])
async def test_kinds_that_are_the_channels_own_cannot_be_sent(
    bus: connections.Connections, kind: int
) -> None:
    async with talks.talking(bus, talks.echo) as channel:
        with pytest.raises(ValueError, match="channel's own"):
            await channel.send(b"", kind=kind)


async def test_a_cancelled_wait_for_a_frame_loses_none(bus: connections.Connections) -> None:
    async def run(channel: channels.Channel) -> TextBack:
        async for frame in channel:
            await channel.send(frame.data)
        return TextBack()

    got: list[bytes] = []
    async with talks.talking(bus, run) as channel, asyncio.TaskGroup() as tasks:

        async def send_all() -> None:
            for number in range(200):
                await channel.send(b"%d" % number)

        tasks.create_task(send_all())
        while len(got) < 200:
            try:
                async with asyncio.timeout(0.0002):
                    frame = await channel.receive()
            except TimeoutError:
                continue
            assert frame is not None
            got.append(bytes(frame.data))

    assert got == [b"%d" % number for number in range(200)]
