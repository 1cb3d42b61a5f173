"""What goes wrong on the way to a port: who is told what, how soon, and that nothing is left behind."""

import asyncio
import socket
import struct
import time
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from paddock.contracts import phases
from paddock.gateway import tunnels
from tests.gateway import apps, door
from tests.support import house, processes


async def error_of(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    body: dict[str, Any] = await answer.json()
    assert answer.headers["X-Paddock-Error"] == body["error"]["kind"]
    return dict(body["error"])


async def free_port() -> int:
    async with apps.raw(lambda _reader, _writer: asyncio.sleep(0)) as port:
        return port


async def test_a_port_where_nothing_listens_refuses(machine: apps.Machine) -> None:
    async with machine.ask(await free_port()) as answer:
        assert answer.status == 502
        error = await error_of(answer)
    assert (error["kind"], error["retryable"]) == ("port_refused", True)
    assert error["message"].startswith("cannot connect to port")


async def test_an_offline_machine_is_known_at_once_and_when_it_was_seen(gateway: door.Door) -> None:
    machine = apps.Machine(gateway, await gateway.machine_in(phases.Phase.ACTIVE))
    started = time.monotonic()
    async with machine.ask(3000) as answer:
        assert answer.status == 503
        error = await error_of(answer)
    assert time.monotonic() - started < 1.0
    assert error["kind"] == "machine_offline"
    assert "lastSeenAt" in error["data"]


async def test_a_machine_nobody_has_is_not_found(gateway: door.Door) -> None:
    async with apps.Machine(gateway, "nosuch").ask(3000) as answer:
        assert (answer.status, (await error_of(answer))["kind"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("phase", "status", "kind"),
    [
        (phases.Phase.CREATED, 503, "machine_not_ready"),
        (phases.Phase.SETTING_UP, 503, "machine_not_ready"),
        (phases.Phase.FAILED, 409, "wrong_phase"),
        (phases.Phase.DELETING, 410, "machine_gone"),
    ],
)
async def test_a_machine_in_another_phase_says_which(
    gateway: door.Door, phase: phases.Phase, status: int, kind: str
) -> None:
    machine = apps.Machine(gateway, await gateway.machine_in(phase))
    async with machine.ask(3000) as answer:
        error = await error_of(answer)
    assert (answer.status, error["kind"], error["data"]["phase"]) == (status, kind, phase)


@pytest.mark.parametrize("port", ["0", "65536", "http"])
async def test_a_port_that_cannot_be_is_refused(machine: apps.Machine, port: Any) -> None:
    for ask in (machine.ask, machine.ask_by_path):
        async with ask(port) as answer:
            assert (answer.status, (await error_of(answer))["kind"]) == (400, "invalid_request")


async def test_an_application_that_stays_silent_is_given_up(ground: house.House) -> None:
    async with door.opened(ground, gateway_ports_head_s=0.2) as gateway:
        app = apps.App()
        gone = asyncio.Event()

        async def answer(_request: web.BaseRequest) -> web.StreamResponse:
            try:
                await asyncio.Event().wait()
            finally:
                gone.set()
            raise AssertionError

        app.answers["/"] = answer
        async with apps.machine(gateway) as machine, app.listening():
            async with machine.ask(app.port) as answered:
                error = await error_of(answered)
            async with asyncio.timeout(5):
                await gone.wait()
    assert (answered.status, error["kind"]) == (504, "no_answer")


async def test_only_the_head_of_an_answer_has_a_limit(ground: house.House) -> None:
    async with door.opened(ground, gateway_ports_head_s=0.2) as gateway:
        app = apps.App()

        async def slow_body(request: web.BaseRequest) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.sleep(0.4)  # longer than the head may take, which is the point
            await response.write(b"late")
            return response

        async def slow_upload() -> Any:
            yield b"one"
            await asyncio.sleep(0.4)  # the application waits, and is not late
            yield b"two"

        app.answers["/slow"] = slow_body
        async with apps.machine(gateway) as machine, app.listening():
            async with machine.ask(app.port, "/slow") as answered:
                assert await answered.read() == b"late"
            async with machine.ask(app.port, "/", "POST", data=slow_upload()) as answered:
                assert answered.status == 200
    assert app.bodies == [b"onetwo"]


async def test_an_application_that_closes_before_it_answers_is_a_bad_gateway(machine: apps.Machine) -> None:
    asked = 0

    async def serve(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1

    async with apps.raw(serve) as port:
        for number, method in enumerate(("GET", "POST", "PUT"), 1):
            async with machine.ask(port, "/", method) as answer:
                assert (answer.status, (await error_of(answer))["kind"]) == (502, "bad_answer")
            assert asked == number, "nothing was asked twice"


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * 1000 + b"\r\n",
    ],
)
async def test_an_answer_that_is_no_http_is_a_bad_gateway(machine: apps.Machine, said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()
        await reader.read()

    async with apps.raw(serve) as port, machine.ask(port) as answer:
        assert (answer.status, (await error_of(answer))["kind"]) == (502, "bad_answer")


@pytest.mark.parametrize(
    "head", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"], ids=["length", "chunks"]
)
async def test_an_answer_that_breaks_off_never_looks_whole(machine: apps.Machine, head: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n5\r\nhello\r\n")

    async with apps.raw(serve) as port, machine.ask(port) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


@pytest.mark.parametrize("is_cut", [True, False], ids=["tunnel", "application"])
async def test_an_answer_without_a_length_that_is_cut_never_looks_whole(
    machine: apps.Machine, is_cut: bool
) -> None:
    said = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhalf of ")
        await said.wait()
        if is_cut:
            await reader.read()
        else:
            at_once = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            writer.transport.abort()

    async with apps.raw(serve) as port, asyncio.timeout(10), machine.ask(port) as answer:
        assert await answer.content.readany() == b"half of "
        said.set()
        if is_cut:
            machine.cut()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_client_that_leaves_ends_the_request_in_the_machine(
    machine: apps.Machine, app: apps.App
) -> None:
    began, gone = asyncio.Event(), asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        raise AssertionError

    app.answers["/"] = answer
    reader, writer = await asyncio.open_connection("127.0.0.1", machine.gateway_port)
    writer.write(
        f"GET / HTTP/1.1\r\nHost: {machine.host(app.port)}\r\n"
        f"Authorization: Bearer {machine.gateway.token}\r\n\r\n".encode()
    )
    async with asyncio.timeout(5):
        await began.wait()
        writer.close()
        await gone.wait()
    await processes.until(lambda: machine.tunnels == 0)
    assert await reader.read() == b""


async def test_a_client_that_leaves_a_large_download_stops_it(machine: apps.Machine, app: apps.App) -> None:
    gone = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(65_536))
        finally:
            gone.set()

    app.answers["/"] = answer
    async with machine.ask(app.port) as answered:
        await answered.content.readany()
        answered.close()
    async with asyncio.timeout(5):
        await gone.wait()
    await processes.until(lambda: machine.tunnels == 0)
    assert machine.tunnels == 0


async def test_a_client_that_breaks_off_its_upload_leaves_no_half_a_request_done(
    machine: apps.Machine, app: apps.App
) -> None:
    began = asyncio.Event()
    read: list[bytes] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        began.set()
        read.append(await request.read())
        return web.Response()

    app.answers["/"] = answer
    _, writer = await asyncio.open_connection("127.0.0.1", machine.gateway_port)
    writer.write(
        f"PUT / HTTP/1.1\r\nHost: {machine.host(app.port)}\r\nTransfer-Encoding: chunked\r\n"
        f"Authorization: Bearer {machine.gateway.token}\r\n\r\n4\r\nhalf\r\n".encode()
    )
    async with asyncio.timeout(5):
        await began.wait()
    writer.close()
    await processes.until(lambda: machine.tunnels == 0)
    assert read == []


async def test_an_application_that_answers_an_upload_early_is_heard(machine: apps.Machine) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await writer.drain()
        await reader.read()

    async with apps.raw(serve) as port, asyncio.timeout(5):
        said = await machine.say(
            f"POST / HTTP/1.1\nHost: {machine.host(port)}\nContent-Length: 50000000\n"
            f"Authorization: Bearer {machine.gateway.token}",
            bytes(500_000),
            until=b"\r\n\r\nno",
        )
    assert said.startswith(b"HTTP/1.1 413 Too Large\r\n")


async def test_a_kept_connection_the_application_closed_is_not_used_again(machine: apps.Machine) -> None:
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await reader.readuntil(b"\r\n\r\n")
        served += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    async with apps.raw(serve) as port:
        for _ in range(3):
            async with machine.ask(port) as answer:
                assert await answer.read() == b"ok"
            await processes.until(lambda: machine.tunnels == 0)
    assert served == 3


async def test_a_request_that_met_a_stale_connection_is_asked_again_and_once(machine: apps.Machine) -> None:
    """The application closes its kept connection just as the next request arrives on it."""
    connections: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        number = len(connections)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        connections[number - 1] += 1

    async with apps.raw(serve) as port:
        for _ in range(2):
            async with machine.ask(port) as answer:
                assert await answer.read() == b"ok"
    assert connections[0] == 1, "it had arrived"
    assert len(connections) == 2


async def test_a_request_that_changes_something_never_meets_a_kept_connection(
    machine: apps.Machine, app: apps.App
) -> None:
    peers = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return web.Response()

    app.answers["/"] = answer
    for method in ("GET", "POST", "PATCH", "POST"):
        async with machine.ask(app.port, "/", method) as answered:
            assert answered.status == 200
    assert len(set(peers)) == 4


async def test_kept_connections_are_dropped_when_the_tunnel_breaks(
    machine: apps.Machine, app: apps.App
) -> None:
    async with machine.ask(app.port) as answer:
        assert answer.status == 200
    assert machine.tunnels == 1
    machine.cut()
    await processes.until(lambda: machine.tunnels == 0)
    await processes.until(lambda: machine.nc.is_connected)
    async with machine.ask(app.port) as answer:
        assert answer.status == 200


async def test_a_machine_that_is_deleted_is_not_asked_over_a_kept_connection(
    machine: apps.Machine, app: apps.App
) -> None:
    async with machine.ask(app.port) as answer:
        assert answer.status == 200
    await machine.gateway.call("machine.delete", machineId=machine.id)
    async with machine.ask(app.port) as answer:
        assert (await error_of(answer))["kind"] == "machine_gone"
    assert len(app.asked) == 1


async def test_idle_connections_are_closed_in_order_and_soon(
    ground: house.House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tunnels.IDLE_S < 5.0, "applications close theirs then"
    monkeypatch.setattr(tunnels, "IDLE_S", 0.1)
    ended: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        try:
            ended.put_nowait(await reader.read())
        except ConnectionError:
            ended.put_nowait(b"reset")

    async with door.opened(ground) as gateway, apps.machine(gateway) as machine, apps.raw(serve) as port:
        async with machine.ask(port) as answer:
            assert await answer.read() == b"ok"
        async with asyncio.timeout(5):
            assert await ended.get() == b""
        await processes.until(lambda: machine.tunnels == 0)


async def test_a_refused_upload_does_not_leave_the_connection_in_doubt(
    machine: apps.Machine, app: apps.App
) -> None:
    said = await machine.say(
        f"POST / HTTP/1.1\nHost: {machine.host(app.port)}\nContent-Length: 1000", until=b"\r\n\r\n"
    )
    assert said.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nConnection: close\r\n" in said
