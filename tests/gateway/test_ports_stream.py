"""A port inside a machine as a stream of bytes: both ways, each with an end of its own, at the pace of the slower side."""

import asyncio
import hashlib
import pathlib
from collections.abc import AsyncIterator

import pytest

from paddock.bus import channels
from paddock.contracts import phases, ports
from paddock.contracts.api import streams
from tests.gateway import door, real_box, stream_socket, toolbox

EOF = stream_socket.EOF
CONTENT = b"".join(b"%07d\n" % number for number in range(400_000))


@pytest.fixture
async def box(gateway: door.Door) -> AsyncIterator[toolbox.Toolbox]:
    machine = await gateway.machine_in(phases.Phase.ACTIVE)
    async with toolbox.running(gateway, machine) as running:
        yield running


async def opened(socket: stream_socket.StreamSocket, box: toolbox.Toolbox, port: int = 80) -> int:
    answer = await socket.call("machine.portOpen", machineId=box.machine, port=port)
    assert answer["address"] == "127.0.0.1"
    return int(answer["stream"])


async def echo(channel: channels.Channel) -> ports.Closed:
    count = 0
    async for frame in channel:
        await channel.send(frame.data)
        count += len(frame.data)
    await channel.send_eof()
    return ports.Closed(sent_bytes=count, received_bytes=count)


async def test_bytes_go_both_ways_at_once_and_arrive_as_they_were(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    box.ports[80] = echo
    async with stream_socket.opened(gateway) as socket:
        stream = await opened(socket, box)
        await socket.send_all(stream, CONTENT)
        end = await socket.end(stream)

    assert socket.content(stream) == CONTENT
    assert socket.has_eof(stream)
    assert end == {"sentBytes": len(CONTENT), "receivedBytes": len(CONTENT), "reset": False}
    assert socket.taken[stream][-1] == len(CONTENT)


async def test_an_answer_after_our_eof_still_comes(gateway: door.Door, box: toolbox.Toolbox) -> None:
    async def digest(channel: channels.Channel) -> ports.Closed:
        seen = hashlib.sha256()
        async for frame in channel:
            seen.update(frame.data)
        await channel.send(seen.hexdigest().encode())
        return ports.Closed(sent_bytes=64, received_bytes=0)

    box.ports[80] = digest
    async with stream_socket.opened(gateway) as socket:
        stream = await opened(socket, box)
        await socket.send_all(stream, CONTENT)
        await socket.end(stream)

    assert socket.content(stream).decode() == hashlib.sha256(CONTENT).hexdigest()


async def test_we_can_go_on_sending_after_their_eof(gateway: door.Door, box: toolbox.Toolbox) -> None:
    got = bytearray()

    async def listen(channel: channels.Channel) -> ports.Closed:
        await channel.send(b"bye")
        await channel.send_eof()
        async for frame in channel:
            got.extend(frame.data)
        return ports.Closed(sent_bytes=3, received_bytes=len(got))

    box.ports[80] = listen
    async with stream_socket.opened(gateway) as socket:
        stream = await opened(socket, box)
        await socket.until(lambda: socket.has_eof(stream))
        await socket.send_all(stream, CONTENT)
        end = await socket.end(stream)

    assert (socket.content(stream), bytes(got)) == (b"bye", CONTENT)
    assert end["receivedBytes"] == len(CONTENT)


async def test_a_port_that_closes_ends_the_stream_although_we_would_send_more(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async def hang_up(_channel: channels.Channel) -> ports.Closed:
        return ports.Closed(sent_bytes=0, received_bytes=0, reset=True)

    box.ports[80] = hang_up
    async with stream_socket.opened(gateway) as socket:
        stream = await opened(socket, box)
        await socket.send(stream, 0, b"x" * 1000)
        end = await socket.end(stream)
        await socket.send(stream, 1000, b"more")
        await socket.call("system.ping")

    assert end["reset"] is True
    assert socket.refusals == []


async def test_a_port_where_nothing_listens_is_refused(gateway: door.Door, box: toolbox.Toolbox) -> None:
    async with stream_socket.opened(gateway) as socket:
        refused = await socket.refused("machine.portOpen", machineId=box.machine, port=81)

    assert (refused["data"]["kind"], refused["message"]) == (
        "port_refused",
        "cannot connect to port 81: nothing listens on it",
    )


async def test_a_tunnel_that_breaks_says_so_and_is_not_put_together_again(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    box.ports[80] = echo
    async with stream_socket.opened(gateway) as socket:
        stream = await opened(socket, box)
        await socket.send(stream, 0, b"hello")
        await socket.until(lambda: socket.content(stream) == b"hello")
        await box.down()
        fault = await socket.fault(stream)

    assert fault["data"]["kind"] in {"channel_broken", "shutting_down"}
    assert fault["data"]["retryable"] is True
    assert box.opened == 1


async def test_an_application_that_does_not_read_stops_its_sender_and_nobody_else(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    reads = asyncio.Event()

    async def wait_first(channel: channels.Channel) -> ports.Closed:
        await reads.wait()
        return await echo(channel)

    box.ports[80], box.ports[81] = wait_first, echo
    async with stream_socket.opened(gateway) as socket:
        slow, quick = await opened(socket, box), await opened(socket, box, 81)
        sent = 0
        while sent < streams.WINDOW_BYTES * 2:
            await socket.send(slow, sent, CONTENT[sent : sent + streams.FRAME_BYTES_MAX])
            sent += streams.FRAME_BYTES_MAX
            if sent - (socket.taken[slow] or [0])[-1] >= streams.WINDOW_BYTES:
                await socket.send(quick, 0, b"ping")
                await socket.until(lambda: socket.content(quick) == b"ping")
                break
        taken = socket.taken[slow][-1]
        reads.set()
        await socket.send(slow, sent, kind=EOF)
        await socket.end(slow)

    assert taken <= streams.WINDOW_BYTES, "no more than the bus's window went on"
    assert socket.content(slow) == CONTENT[:sent]


async def test_a_real_port_of_a_real_machine_is_reached(gateway: door.Door, tmp_path: pathlib.Path) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data.upper())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    content = b"hello paddock\n" * 200_000
    async with server, real_box.running(gateway, tmp_path) as box, stream_socket.opened(gateway) as socket:
        opened = await socket.call("machine.portOpen", machineId=box.machine, port=port)
        await socket.send_all(opened["stream"], content)
        end = await socket.end(opened["stream"])
        server.close()
        refused = await socket.refused("machine.portOpen", machineId=box.machine, port=port)

    assert opened["address"] == "127.0.0.1"
    assert socket.content(opened["stream"]) == content.upper()
    assert (end["sentBytes"], end["receivedBytes"]) == (len(content), len(content))
    assert refused["data"]["kind"] == "port_refused"
