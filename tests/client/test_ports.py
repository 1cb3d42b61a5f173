"""Ports of a machine through the client, against the gateway itself and an application on a real port."""

import asyncio
import io
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from paddock.client import client as gateway_client
from paddock.client import machine as machine_of
from paddock.contracts import errors, phases
from tests.gateway import apps, door
from tests.support import house, processes


@pytest.fixture
async def gateway(tmp_path: pathlib.Path) -> AsyncIterator[door.Door]:
    async with house.opened(tmp_path) as ground, door.opened(ground) as opened:
        yield opened


@pytest.fixture
async def there(gateway: door.Door) -> AsyncIterator[apps.Machine]:
    async with apps.machine(gateway) as up:
        yield up


@pytest.fixture
async def app() -> AsyncIterator[apps.App]:
    running = apps.App()
    async with running.listening():
        yield running


@pytest.fixture
async def client(gateway: door.Door) -> AsyncIterator[gateway_client.Client]:
    async with gateway_client.Client(gateway.url, gateway.token) as connected:
        yield connected


@pytest.fixture
def machine(client: gateway_client.Client, there: apps.Machine) -> machine_of.Machine:
    return client.machine(there.id)


async def free_port() -> int:
    async with apps.raw(lambda _reader, _writer: asyncio.sleep(0)) as port:
        return port


async def test_fetch_answers_what_the_application_does(machine: machine_of.Machine, app: apps.App) -> None:
    async with machine.fetch(app.port, "/a%2Fb?c=%41&d") as response:
        assert (response.status, await response.text()) == (200, "GET /a%2Fb?c=%41&d")
    response = await machine.fetch(app.port)
    assert await response.text() == "GET /"


async def test_fetch_sends_what_it_is_given(machine: machine_of.Machine, app: apps.App) -> None:
    bodies: list[Any] = [
        {"json": {"a": [1]}},
        {"data": b"raw"},
        {"data": bytes(2 << 20)},
        {"data": io.BytesIO(b"file")},
    ]
    for body in bodies:
        async with machine.fetch(app.port, method="POST", headers={"X-Mine": "1"}, **body) as response:
            assert response.status == 200
        assert app.last.headers["X-Mine"] == "1"
    async with machine.fetch(app.port, "/q?x=1", params={"y": "ü &"}) as response:
        assert await response.text() == "GET /q?x=1&y=%C3%BC+%26"

    assert json.loads(app.bodies[0]) == {"a": [1]}
    assert [len(body) for body in app.bodies[1:4]] == [3, 2 << 20, 4]


async def test_a_path_as_people_write_it_is_encoded(machine: machine_of.Machine, app: apps.App) -> None:
    async with machine.fetch(app.port, "/a b/ü?c=d e") as response:
        assert await response.text() == "GET /a%20b/%C3%BC?c=d+e"


async def test_fetch_shows_the_application_no_token_and_passes_its_own(
    machine: machine_of.Machine, app: apps.App, gateway: door.Door
) -> None:
    async with machine.fetch(app.port) as response:
        assert response.status == 200
    first = app.last.headers
    async with machine.fetch(app.port, headers={"Authorization": "Bearer of-the-app"}) as response:
        assert response.status == 200

    assert "Authorization" not in first
    assert app.last.headers["Authorization"] == "Bearer of-the-app"
    assert gateway.token not in str([one.headers for one in app.asked])


async def test_errors_and_redirects_of_the_application_are_answers(
    machine: machine_of.Machine, app: apps.App
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        status = int(request.query["status"])
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    app.answers["/"] = answer
    for status in (302, 401, 404, 500, 502, 503):
        async with machine.fetch(app.port, f"/?status={status}") as response:
            assert response.status == status
    assert len(app.asked) == 6


async def test_what_the_gateway_could_not_do_is_a_fault(
    client: gateway_client.Client, machine: machine_of.Machine, gateway: door.Door
) -> None:
    offline = client.machine(await gateway.machine_in(phases.Phase.ACTIVE))
    young = client.machine(await gateway.machine_in(phases.Phase.BOOTING))
    port = await free_port()

    with pytest.raises(errors.PortRefused, match="cannot connect to port"):
        await machine.fetch(port)
    with pytest.raises(errors.MachineOffline) as away:
        await offline.fetch(3000)
    with pytest.raises(errors.MachineNotReady) as not_yet:
        await young.fetch(3000)
    with pytest.raises(errors.NotFound):
        await client.machine("nosuch").fetch(3000)
    with pytest.raises(errors.PortRefused, match="cannot open a WebSocket"):
        await machine.websocket(port)
    with pytest.raises(errors.PortRefused):
        await machine.connect(port)
    with pytest.raises(errors.MachineOffline):
        await offline.connect(3000)
    assert "lastSeenAt" in away.value.data
    assert not_yet.value.data["phase"] == "booting"


async def test_a_gateway_that_is_not_there_or_not_ours_is_told_apart(gateway: door.Door) -> None:
    async with gateway_client.Client(f"http://127.0.0.1:{await free_port()}", gateway.token) as client:
        with pytest.raises(errors.GatewayUnreachable):
            await client.machine("m1").fetch(3000)
        with pytest.raises(errors.GatewayUnreachable):
            await client.machine("m1").websocket(3000)
    async with gateway_client.Client(gateway.url, "pdk_t0_" + "x" * 43) as client:
        with pytest.raises(errors.Unauthenticated):
            await client.machine("m1").fetch(3000)
        with pytest.raises(errors.Unauthenticated):
            await client.machine("m1").websocket(3000)


@pytest.mark.parametrize("port", [0, 65_536, -1])
async def test_a_port_that_cannot_be_is_refused_here(machine: machine_of.Machine, port: int) -> None:
    with pytest.raises(errors.InvalidParams):
        machine.fetch(port)
    with pytest.raises(errors.InvalidParams):
        await machine.websocket(port)
    with pytest.raises(errors.InvalidParams):
        await machine.connect(port)
    with pytest.raises(errors.InvalidParams):
        await machine.port_url(port)


async def test_a_path_must_begin_with_a_slash(machine: machine_of.Machine) -> None:
    with pytest.raises(errors.InvalidParams, match="must begin with /"):
        machine.fetch(3000, "rpc")


async def test_an_answer_that_takes_too_long_is_given_up(machine: machine_of.Machine, app: apps.App) -> None:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    app.answers["/"] = answer
    with pytest.raises(errors.NoAnswer, match="took too long"):
        await machine.fetch(app.port, timeout_s=0.1)


async def test_a_body_comes_as_it_is_sent(machine: machine_of.Machine, app: apps.App) -> None:
    may_go_on = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await may_go_on.wait()
        await response.write(b"last")
        return response

    app.answers["/"] = answer
    async with asyncio.timeout(5), machine.fetch(app.port) as response:
        first = await response.content.readany()
        may_go_on.set()
        assert (first, await response.read()) == (b"first", b"last")


async def test_a_websocket_reaches_the_application(
    machine: machine_of.Machine, app: apps.App, gateway: door.Door
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("chat",))
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data.upper())
        return socket

    app.answers["/chat"] = answer
    async with await machine.websocket(app.port, "/chat?room=1", protocols=["chat"]) as socket:
        await socket.send_str("hello")
        assert (await socket.receive_str(), socket.protocol) == ("HELLO", "chat")
    assert app.last.raw_path == "/chat?room=1"
    assert gateway.token not in str(app.last.headers)


async def test_an_application_that_wants_no_websocket_is_a_bad_answer(
    machine: machine_of.Machine, app: apps.App
) -> None:
    async def elsewhere(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": f"http://127.0.0.1:{app.port}/caught"})

    app.answers["/moved"] = elsewhere
    with pytest.raises(errors.BadAnswer, match="answered HTTP 200"):
        await machine.websocket(app.port, "/")
    with pytest.raises(errors.BadAnswer, match="answered HTTP 302"):
        await machine.websocket(app.port, "/moved")
    assert [one.path for one in app.asked] == ["/", "/moved"], "our token was taken nowhere else"


async def test_an_address_lets_anybody_in(machine: machine_of.Machine, app: apps.App) -> None:
    made = await machine.port_url(app.port, "/a?b=c", expires_s=60)
    async with aiohttp.ClientSession() as stranger, stranger.get(made.path_url) as response:
        assert await response.text() == "GET /a?b=c"
    assert made.url.startswith(f"http://{app.port}--{machine.id}.localhost:")


async def test_a_plain_connection_carries_bytes_both_ways_and_each_end_ends_its_own(
    machine: machine_of.Machine,
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello ")
        writer.write((await reader.read()).upper())
        writer.write_eof()

    async with apps.raw(serve) as port, asyncio.timeout(5), await machine.connect(port) as connection:
        assert await connection.read() == b"hello "
        await connection.write(b"wor")
        await connection.write(b"ld")
        await connection.write_eof()
        assert await connection.read() == b"WORLD"
        assert await connection.read() == b""
        assert not connection.was_reset


async def test_a_plain_connection_carries_much_at_the_readers_pace(
    machine: machine_of.Machine, there: apps.Machine
) -> None:
    size, received = 16 << 20, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async with (
        apps.raw(serve) as port,
        asyncio.timeout(30),
        await machine.connect(port) as connection,
        asyncio.TaskGroup() as tasks,
    ):

        async def send() -> None:
            await connection.write(bytes(size))
            await connection.write_eof()

        tasks.create_task(send())
        while data := await connection.read():
            received += len(data)
    assert received == size
    await processes.until(lambda: there.tunnels == 0)


async def test_a_plain_connection_that_is_left_ends_in_the_machine(machine: machine_of.Machine) -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            gone.set()

    async with apps.raw(serve) as port, asyncio.timeout(5):
        async with await machine.connect(port):
            assert not gone.is_set()
        await gone.wait()


async def test_a_plain_connection_breaks_when_the_machine_goes_away(
    machine: machine_of.Machine, there: apps.Machine
) -> None:
    async def serve(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with apps.raw(serve) as port, asyncio.timeout(10), await machine.connect(port) as connection:
        there.cut()
        with pytest.raises(errors.ChannelBroken):
            await connection.read()
