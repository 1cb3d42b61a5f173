"""WebSockets to a port inside a machine: what the two ends say to each other, and how it ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from paddock.gateway import port_lasting
from tests.gateway import apps, door
from tests.support import house, processes

Talk = Callable[[web.WebSocketResponse], Any]


def talking(talk: Talk, **options: Any) -> Any:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse(**options)
        await socket.prepare(request)
        await talk(socket)
        return socket

    return answer


async def echo(socket: web.WebSocketResponse) -> None:
    async for message in socket:
        if message.type is aiohttp.WSMsgType.TEXT:
            await socket.send_str(message.data)
        else:
            await socket.send_bytes(message.data)


@contextlib.asynccontextmanager
async def connected(
    machine: apps.Machine, port: int, **options: Any
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    headers = {**machine.gateway.headers, "Host": machine.host(port), **options.pop("headers", {})}
    async with (
        asyncio.timeout(15),
        machine.gateway.http.ws_connect(f"{machine.gateway.url}/ws", headers=headers, **options) as socket,
    ):
        yield socket


async def test_text_and_binary_go_both_ways(machine: apps.Machine, app: apps.App) -> None:
    app.answers["/ws"] = talking(echo)
    async with connected(machine, app.port) as socket:
        await socket.send_str("Grüße €")
        await socket.send_bytes(b"\x00\xff")

        assert await socket.receive_str() == "Grüße €"
        assert await socket.receive_bytes() == b"\x00\xff"


async def test_it_works_by_path_too(machine: apps.Machine, app: apps.App) -> None:
    app.answers["/chat"] = talking(echo)
    url = f"{machine.gateway.url}{machine.path(app.port, '/chat?room=1')}"
    async with machine.gateway.http.ws_connect(url, headers=machine.gateway.headers) as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"
    assert app.last.raw_path == "/chat?room=1"


async def test_the_subprotocol_is_agreed_between_the_ends(machine: apps.Machine, app: apps.App) -> None:
    app.answers["/ws"] = talking(echo, protocols=("v2.chat", "v1.chat"))
    async with connected(machine, app.port, protocols=("x", "v1.chat")) as socket:
        assert socket.protocol == "v1.chat"


async def test_compression_is_agreed_between_the_ends(machine: apps.Machine, app: apps.App) -> None:
    app.answers["/ws"] = talking(echo)
    async with connected(machine, app.port, compress=15) as socket:
        await socket.send_str("abc" * 10_000)
        assert await socket.receive_str() == "abc" * 10_000
        assert socket.compress == 15


async def test_a_message_of_many_mebibytes_is_one_message(machine: apps.Machine, app: apps.App) -> None:
    app.answers["/ws"] = talking(echo, max_msg_size=0)
    async with connected(machine, app.port, max_msg_size=0) as socket:
        await socket.send_bytes(bytes(8 << 20))
        assert await socket.receive_bytes() == bytes(8 << 20)


async def test_pings_reach_the_application_and_its_pongs_come_back(
    machine: apps.Machine, app: apps.App
) -> None:
    seen: asyncio.Queue[aiohttp.WSMessage] = asyncio.Queue()

    async def talk(socket: web.WebSocketResponse) -> None:
        seen.put_nowait(await socket.receive())
        await socket.pong(b"there")
        await socket.receive()

    app.answers["/ws"] = talking(talk, autoping=False)
    async with connected(machine, app.port, autoping=False) as socket:
        await socket.ping(b"anybody")
        pong = await socket.receive()
        ping = await seen.get()
    assert (ping.type, bytes(ping.data)) == (aiohttp.WSMsgType.PING, b"anybody")
    assert (pong.type, bytes(pong.data)) == (aiohttp.WSMsgType.PONG, b"there")


async def test_close_codes_go_both_ways(machine: apps.Machine, app: apps.App) -> None:
    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def leave(socket: web.WebSocketResponse) -> None:
        await socket.close(code=4001, message=b"enough")

    async def wait(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        codes.put_nowait(socket.close_code)

    app.answers["/ws"] = talking(leave)
    async with connected(machine, app.port) as socket:
        message = await socket.receive()
        assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 4001, "enough")
    app.answers["/ws"] = talking(wait)
    async with connected(machine, app.port) as socket:
        await socket.close(code=4002)
    async with asyncio.timeout(5):
        assert await codes.get() == 4002


async def test_what_is_said_with_the_handshake_is_not_lost(machine: apps.Machine) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfrom the application,"
        )
        writer.write(b"got " + await reader.readexactly(5))

    async with apps.raw(serve) as port:
        said = await machine.say(
            f"GET / HTTP/1.1\nHost: {machine.host(port)}\nConnection: keep-alive, Upgrade\nUpgrade: WebSocket\n"
            f"Authorization: Bearer {machine.gateway.token}",
            b"early",
        )
    assert said.startswith(b"HTTP/1.1 101 Go\r\n")
    assert said.endswith(b"\r\n\r\nfrom the application,got early")


async def test_an_application_that_wants_no_websocket_says_so(machine: apps.Machine, app: apps.App) -> None:
    headers = {**machine.gateway.headers, "Host": machine.host(app.port)}
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await machine.gateway.http.ws_connect(f"{machine.gateway.url}/plain", headers=headers)
    assert refused.value.status == 200
    assert app.last.headers["Upgrade"] == "websocket"


async def test_a_slow_reader_slows_its_own_websocket_only(machine: apps.Machine, app: apps.App) -> None:
    sent = 0
    part = bytes(1 << 20)

    async def talk(socket: web.WebSocketResponse) -> None:
        nonlocal sent
        for _ in range(64):
            await socket.send_bytes(part)
            sent += 1

    app.answers["/ws"] = talking(talk)
    async with connected(machine, app.port, max_msg_size=0) as socket:
        await socket.receive_bytes()
        async with machine.ask(app.port, "/other") as answer:
            assert answer.status == 200
        assert sent < 32, "the rest waits in the application"
        for _ in range(63):
            assert await socket.receive_bytes() == part


async def test_a_client_that_leaves_ends_the_applications_connection(
    machine: apps.Machine, app: apps.App
) -> None:
    gone = asyncio.Event()

    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.send_str("hello")
        try:
            await socket.receive()
        finally:
            gone.set()

    app.answers["/ws"] = talking(talk)
    async with connected(machine, app.port) as socket:
        await socket.receive_str()
        response: Any = socket._response
        response.connection.transport.abort()
        await gone.wait()
    await processes.until(lambda: machine.tunnels == 0)
    assert gone.is_set()


async def test_a_websocket_ends_with_its_machines_connection(machine: apps.Machine, app: apps.App) -> None:
    app.answers["/ws"] = talking(echo)
    async with connected(machine, app.port) as socket:
        await socket.send_str("hello")
        await socket.receive_str()
        machine.cut()
        message = await socket.receive()
    assert message.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.ERROR}


async def test_a_websocket_ends_with_its_token(
    ground: house.House, app: apps.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert port_lasting.CHECK_S <= 3.0
    monkeypatch.setattr(port_lasting, "CHECK_S", 0.05)
    app.answers["/ws"] = talking(echo)
    async with door.opened(ground) as gateway, apps.machine(gateway) as machine:
        made = await gateway.call("token.create", name="short")
        headers = {"Authorization": f"Bearer {made['text']}"}
        async with (
            connected(machine, app.port, headers=headers) as socket,
            connected(machine, app.port) as other,
        ):
            await gateway.call("token.revoke", tokenId=made["token"]["id"])
            message = await socket.receive()
            await other.send_str("still here")

            assert message.type is aiohttp.WSMsgType.CLOSED
            assert await other.receive_str() == "still here"


async def test_a_websocket_ends_with_its_ticket(
    ground: house.House, app: apps.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_lasting, "CHECK_S", 0.05)
    app.answers["/ws"] = talking(echo)
    async with door.opened(ground) as gateway, apps.machine(gateway) as machine:
        made = await gateway.call("machine.portUrl", machineId=machine.id, port=app.port, expiresS=0.5)
        cookie = {"Cookie": made["url"].partition("?")[2], "Authorization": ""}
        async with connected(machine, app.port, headers=cookie) as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSED


async def test_a_gateway_that_stops_ends_websockets_waits_for_answers_and_takes_nothing_new(
    machine: apps.Machine, app: apps.App, gateway: door.Door
) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    async def slowly(_request: web.BaseRequest) -> web.StreamResponse:
        began.set()
        await may_end.wait()
        return web.Response(text="whole")

    app.answers.update({"/ws": talking(echo), "/slow": slowly})

    async def ask() -> str:
        async with machine.ask(app.port, "/slow") as answer:
            return await answer.text()

    reader, writer = await asyncio.open_connection("127.0.0.1", machine.gateway_port)
    async with connected(machine, app.port) as socket, asyncio.TaskGroup() as tasks:
        answered = tasks.create_task(ask())
        await began.wait()
        gateway.stop.set()
        message = await socket.receive()
        head = f"Host: {machine.host(app.port)}\r\nAuthorization: Bearer {machine.gateway.token}\r\n\r\n"
        writer.write(f"GET / HTTP/1.1\r\n{head}".encode())
        refused = await reader.readuntil(b"\r\n\r\n")
        may_end.set()
    writer.close()
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert message.type is aiohttp.WSMsgType.CLOSED
    assert answered.result() == "whole"
