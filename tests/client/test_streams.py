import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from paddock.client import address, transport
from paddock.client import streams as client_streams
from paddock.contracts import errors
from paddock.contracts.api import methods, ports, streams

Script = Callable[[web.WebSocketResponse], Awaitable[None]]
Link = client_streams.StreamLink[ports.PortOpened]
DATA = streams.FrameKind.DATA
PIECE = streams.FRAME_BYTES_MAX


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Awaitable[Link]]]:
    """Opens a stream at a gateway that does what a script says once the stream is open."""
    runners: list[web.AppRunner] = []
    links: list[Link] = []
    async with contextlib.AsyncExitStack() as stack:

        async def open_at(script: Script, *, answer: str | None = None, timeout_s: float = 5.0) -> Link:
            async def handler(request: web.Request) -> web.WebSocketResponse:
                socket = web.WebSocketResponse()
                await socket.prepare(request)
                asked = json.loads(await socket.receive_str())
                assert asked["method"] == "machine.portOpen"
                reply = {"jsonrpc": "2.0", "id": asked["id"], "result": {"stream": 7, "address": "::1"}}
                await socket.send_str(json.dumps(reply) if answer is None else answer)
                await script(socket)
                return socket

            app = web.Application()
            app.add_routes([web.get("/ws", handler)])
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            runners.append(runner)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            where = address.Address(f"http://127.0.0.1:{runner.addresses[0][1]}", "pdk_x")
            gateway = await stack.enter_async_context(transport.Transport(where))
            asked = ports.MachinePortOpen(machine_id="m1", port=80)
            link = await client_streams.opened(gateway, methods.MACHINE_PORT_OPEN, asked, timeout_s=timeout_s)
            links.append(link)
            return link

        yield open_at
        for link in links:
            await link.aclose()
    for runner in runners:
        await runner.cleanup()


def told(method: str, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": {"stream": 7, **params}})


async def nothing(socket: web.WebSocketResponse) -> None:
    """Neither says nor takes anything."""
    await asyncio.Event().wait()


async def until_closed(socket: web.WebSocketResponse) -> None:
    async for _ in socket:
        pass


async def echo(socket: web.WebSocketResponse) -> None:
    """Sends back what comes, and then says that it was taken."""
    async for message in socket:
        kind, stream, offset, data = streams.split_frame(message.data)
        await socket.send_bytes(streams.frame(kind, stream, offset, data))
        await socket.send_str(told("stream.taken", offset=offset + len(data)))
        if kind is streams.FrameKind.EOF:
            await socket.send_str(told("stream.ended", result={"sentBytes": offset, "receivedBytes": offset}))


async def test_bytes_go_both_ways_at_the_same_time(opened: Callable[..., Awaitable[Link]]) -> None:
    link = await opened(echo)
    whole = bytes(range(256)) * 20_000
    got = bytearray()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:

        async def send() -> None:
            await link.send(whole)
            await link.send_eof()

        group.create_task(send())
        kinds = []
        while (frame := await link.receive()) is not None:
            got += frame.data
            kinds.append(frame.kind)

    assert bytes(got) == whole
    assert kinds[-1] is streams.FrameKind.EOF
    assert link.opened.address == "::1"
    assert link.result == {"sentBytes": len(whole), "receivedBytes": len(whole)}
    assert link.taken == link.sent == len(whole)


async def test_a_sender_alone_hears_what_was_taken(opened: Callable[..., Awaitable[Link]]) -> None:
    async def take(socket: web.WebSocketResponse) -> None:
        async for message in socket:
            _, _, offset, data = streams.split_frame(message.data)
            await socket.send_str(told("stream.taken", offset=offset + len(data)))

    link = await opened(take)

    async with asyncio.timeout(5):
        await link.send(bytes(10 * streams.WINDOW_BYTES))

    assert link.taken >= 9 * streams.WINDOW_BYTES


async def test_a_sender_waits_for_a_machine_that_takes_nothing(
    opened: Callable[..., Awaitable[Link]],
) -> None:
    link = await opened(until_closed)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await link.send(bytes(2 * streams.WINDOW_BYTES))

    assert link.sent <= streams.WINDOW_BYTES + PIECE


async def test_a_sender_sets_no_more_aside_than_fits_for_a_reader_that_does_not_read(
    opened: Callable[..., Awaitable[Link]],
) -> None:
    async def flood(socket: web.WebSocketResponse) -> None:
        for number in range(40):
            await socket.send_bytes(streams.frame(DATA, 7, number * PIECE, bytes(PIECE)))
        await socket.send_str(told("stream.taken", offset=streams.WINDOW_BYTES))
        await until_closed(socket)

    link = await opened(flood)
    await link.send(bytes(streams.WINDOW_BYTES))
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        sending = group.create_task(link.send(b"more"))
        done, _ = await asyncio.wait({sending}, timeout=0.1)
        set_aside = link._inbox_bytes
        frames = [await link.receive() for _ in range(40)]

    assert not done
    assert set_aside <= client_streams.INBOX_BYTES + PIECE
    assert [frame.offset for frame in frames if frame] == [number * PIECE for number in range(40)]


async def test_a_cut_link_is_a_broken_channel_for_reader_and_sender(
    opened: Callable[..., Awaitable[Link]],
) -> None:
    async def cut(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(streams.frame(DATA, 7, 0, b"last words"))
        await socket.close()

    link = await opened(cut)

    frame = await link.receive()
    assert frame is not None
    assert bytes(frame.data) == b"last words"
    with pytest.raises(errors.ChannelBroken):
        await link.receive()
    with pytest.raises(errors.ChannelBroken):
        await link.send(b"x")
    with pytest.raises(errors.ChannelBroken):
        await link.send_eof()


async def test_a_stream_that_could_not_go_on_ends_with_its_fault_after_what_came_before(
    opened: Callable[..., Awaitable[Link]],
) -> None:
    async def fail(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(streams.frame(DATA, 7, 0, b"before"))
        fault = {"code": errors.DiskFull.code, "message": "cannot write: full", "data": {"free": 3}}
        await socket.send_str(told("stream.ended", error=fault))
        await until_closed(socket)

    link = await opened(fail)

    assert await link.receive() is not None
    for _ in range(2):
        with pytest.raises(errors.DiskFull, match="cannot write: full") as caught:
            await link.receive()
        assert caught.value.data == {"free": 3}
    with pytest.raises(errors.DiskFull):
        await link.send(b"x")


async def test_what_a_newer_gateway_says_besides_is_passed_over(
    opened: Callable[..., Awaitable[Link]],
) -> None:
    async def chat(socket: web.WebSocketResponse) -> None:
        await socket.send_str(told("stream.weather", sky="blue"))
        await socket.send_str(json.dumps({"jsonrpc": "2.0", "method": "event", "params": {}}))
        await socket.send_str(told("stream.ended", stream=8, result={"other": 1}))
        await socket.send_bytes(streams.frame(DATA, 8, 0, b"of another stream"))
        await socket.send_bytes(streams.frame(DATA, 7, 0, b"ours"))
        await until_closed(socket)

    link = await opened(chat)
    frame = await link.receive()

    assert frame is not None
    assert bytes(frame.data) == b"ours"


@pytest.mark.parametrize(
    "message",
    [b"\x09\x00", b"\x63" + bytes(12), "no json", told("stream.taken", offset="far")],
    ids=["short", "kind", "text", "offset"],
)
async def test_what_cannot_be_read_is_a_fault(
    opened: Callable[..., Awaitable[Link]], message: str | bytes
) -> None:
    async def babble(socket: web.WebSocketResponse) -> None:
        await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
        await until_closed(socket)

    link = await opened(babble)

    with pytest.raises((errors.BadAnswer, errors.InvalidRequest)):
        await link.receive()


async def test_receiving_can_be_cancelled_without_losing_a_frame(
    opened: Callable[..., Awaitable[Link]],
) -> None:
    speak = asyncio.Event()

    async def speak_late(socket: web.WebSocketResponse) -> None:
        await speak.wait()
        await socket.send_bytes(streams.frame(DATA, 7, 0, b"late"))
        await until_closed(socket)

    link = await opened(speak_late)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await link.receive()
    speak.set()
    frame = await link.receive()

    assert frame is not None
    assert bytes(frame.data) == b"late"


async def test_a_gateway_that_does_not_answer_is_given_up_in_time(
    opened: Callable[..., Awaitable[Link]],
) -> None:
    with pytest.raises(errors.NoAnswer, match=r"machine\.portOpen"):
        await opened(until_closed, answer=told("hello"), timeout_s=0.05)


async def test_a_refusal_is_its_fault(opened: Callable[..., Awaitable[Link]]) -> None:
    refused = {"code": errors.PortRefused.code, "message": "cannot connect to port 80", "data": {}}
    with pytest.raises(errors.PortRefused, match="port 80"):
        await opened(until_closed, answer=json.dumps({"jsonrpc": "2.0", "id": 1, "error": refused}))
    with pytest.raises(errors.BadAnswer):
        await opened(until_closed, answer=json.dumps({"jsonrpc": "2.0", "id": 1, "result": {}}))


async def test_a_stream_that_is_left_is_closed_at_the_gateway(
    opened: Callable[..., Awaitable[Link]],
) -> None:
    closed: list[aiohttp.WSMsgType] = []
    is_closed = asyncio.Event()

    async def watch(socket: web.WebSocketResponse) -> None:
        closed.append((await socket.receive()).type)
        is_closed.set()

    async with await opened(watch):
        pass
    async with asyncio.timeout(5):
        await is_closed.wait()

    assert closed == [aiohttp.WSMsgType.CLOSE]
