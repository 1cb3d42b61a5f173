"""Large and endless bodies to and from a port: as they come, at the reader's pace, and never whole in memory."""

import asyncio
import hashlib
import os
import pathlib
from collections.abc import AsyncIterator

from aiohttp import web

from tests.gateway import apps

MIB = 1024 * 1024
SIZE = 64 * MIB
UNDER_WAY_MAX = 24 * MIB
"""What may be between the two ends: most of it in the kernel's buffers of two connections, which it sizes itself."""
GROWTH_MAX = 16 * MIB
"""Of this process, in which gateway, machine, application and client are."""
PART = bytes(range(256)) * 256


def resident_bytes() -> int:
    """Of memory in use by this process."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_a_large_download_arrives_whole(machine: apps.Machine, app: apps.App) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(SIZE)})
        await response.prepare(request)
        for _ in range(SIZE // len(PART)):
            await response.write(PART)
        return response

    app.answers["/"] = answer
    digest = hashlib.sha256()
    async with machine.ask(app.port) as answered:
        assert answered.headers["Content-Length"] == str(SIZE)
        async for data in answered.content.iter_any():
            digest.update(data)
    assert digest.digest() == hashlib.sha256(PART * (SIZE // len(PART))).digest()


async def test_a_large_upload_arrives_whole(machine: apps.Machine, app: apps.App) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        digest = hashlib.sha256()
        async for data in request.content.iter_any():
            digest.update(data)
        return web.Response(text=digest.hexdigest())

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(SIZE // len(PART)):
            yield PART

    app.answers["/"] = answer
    async with machine.ask(app.port, "/", "PUT", data=parts()) as answered:
        assert await answered.text() == hashlib.sha256(PART * (SIZE // len(PART))).hexdigest()


async def test_a_slow_reader_slows_the_application_and_little_is_under_way(
    machine: apps.Machine, app: apps.App
) -> None:
    sent = 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(SIZE // len(PART)):
            await response.write(PART)
            sent += len(PART)
        return response

    app.answers["/"] = answer
    read, sizes = 0, [resident_bytes()]
    under_way: list[int] = []
    async with machine.ask(app.port) as answered:
        async for data in answered.content.iter_any():
            read += len(data)
            if len(under_way) * 4 * MIB < read:
                await asyncio.sleep(0.05)  # what is slow here is the point
                under_way.append(sent - read)
                sizes.append(resident_bytes())
    assert read == SIZE
    assert max(under_way) < UNDER_WAY_MAX, under_way
    assert max(sizes) - sizes[0] < GROWTH_MAX, sizes


async def test_a_slow_application_slows_the_client_and_little_is_under_way(
    machine: apps.Machine, app: apps.App
) -> None:
    sent = 0
    read, sizes = 0, [resident_bytes()]
    under_way: list[int] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal read
        async for data in request.content.iter_any():
            read += len(data)
            if len(under_way) * 4 * MIB < read:
                await asyncio.sleep(0.05)  # what is slow here is the point
                under_way.append(sent - read)
                sizes.append(resident_bytes())
        return web.Response()

    async def parts() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(SIZE // len(PART)):
            yield PART
            sent += len(PART)

    app.answers["/"] = answer
    async with machine.ask(app.port, "/", "POST", data=parts()) as answered:
        assert answered.status == 200
    assert read == SIZE
    assert max(under_way) < UNDER_WAY_MAX, under_way
    assert max(sizes) - sizes[0] < GROWTH_MAX, sizes


async def test_events_arrive_as_they_are_sent(machine: apps.Machine, app: apps.App) -> None:
    may_go_on = asyncio.Semaphore(0)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(5):
            await response.write(f"data: {number}\n\n".encode())
            await may_go_on.acquire()
        return response

    app.answers["/"] = answer
    events = []
    async with asyncio.timeout(5), machine.ask(app.port) as answered:
        while line := await answered.content.readline():
            if line.startswith(b"data"):
                events.append(line)
                may_go_on.release()
    assert events == [f"data: {number}\n".encode() for number in range(5)]


async def test_the_head_of_an_answer_arrives_before_its_body(machine: apps.Machine, app: apps.App) -> None:
    may_go_on = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"X-Early": "1"})
        await response.prepare(request)
        await may_go_on.wait()
        return response

    app.answers["/"] = answer
    async with asyncio.timeout(5), machine.ask(app.port) as answered:
        assert answered.headers["X-Early"] == "1"
        may_go_on.set()
        assert await answered.read() == b""


async def test_the_head_of_a_request_arrives_before_its_body(machine: apps.Machine, app: apps.App) -> None:
    asked = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        return web.Response(body=await request.read())

    app.answers["/"] = answer
    reader, writer = await asyncio.open_connection("127.0.0.1", machine.gateway_port)
    writer.write(
        f"POST / HTTP/1.1\r\nHost: {machine.host(app.port)}\r\nContent-Length: 4\r\nConnection: close\r\n"
        f"Authorization: Bearer {machine.gateway.token}\r\n\r\n".encode()
    )
    async with asyncio.timeout(5):
        await asked.wait()
        writer.write(b"late")
        said = await reader.read()
    writer.close()

    assert said.endswith(b"\r\n\r\nlate")


async def test_both_directions_flow_at_once(machine: apps.Machine, app: apps.App) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for data in request.content.iter_any():
            await response.write(data.upper())
        return response

    said: asyncio.Queue[bytes] = asyncio.Queue()

    async def parts() -> AsyncIterator[bytes]:
        while part := await said.get():
            yield part

    app.answers["/"] = answer
    said.put_nowait(b"first")
    heard = []
    async with asyncio.timeout(5), machine.ask(app.port, "/", "POST", data=parts()) as answered:
        async for data in answered.content.iter_any():
            heard.append(data)
            said.put_nowait(b"second" if len(heard) == 1 else b"")
    assert heard == [b"FIRST", b"SECOND"]


async def test_connections_to_an_application_are_kept_for_the_next_request(
    machine: apps.Machine, app: apps.App
) -> None:
    peers = set()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response()

    app.answers["/"] = answer
    for _ in range(5):
        async with machine.ask(app.port) as answered:
            assert answered.status == 200
    assert (len(peers), machine.tunnels) == (1, 1)


async def test_many_requests_at_once_are_answered_each_its_own(machine: apps.Machine, app: apps.App) -> None:
    async def one(number: int) -> str:
        async with machine.ask(app.port, f"/{number}") as answered:
            return await answered.text()

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        answers = [tasks.create_task(one(number)) for number in range(100)]
    assert [answer.result() for answer in answers] == [f"GET /{number}" for number in range(100)]
