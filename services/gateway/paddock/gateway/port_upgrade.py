"""A connection that became a WebSocket: from then on bytes both ways, which nobody here reads.

So messages, pings, close codes, subprotocols and extensions are what the two ends make of them. A side that is read slowly
waits. When one side ends, what it said goes out and the other is ended.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp
from aiohttp import http, web
from aiohttp import streams as aio_streams

_BUFFER_BYTES: Final = 64 * 1024


class _Inlet:
    """Where aiohttp puts what comes after the head, in place of a parser."""

    def __init__(self, protocol: Any) -> None:
        loop = asyncio.get_running_loop()
        self.stream = aio_streams.StreamReader(protocol, _BUFFER_BYTES, loop=loop)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.stream.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self.stream.feed_eof()


async def relay(
    request: web.BaseRequest, upstream: aiohttp.ClientResponse, answer: web.StreamResponse
) -> None:
    """Send the answer that agrees to the upgrade, and then what both sides say, until one of them ends.

    Raises:
        OSError: One of them was gone before it began.

    Cancellation: safe; the caller ends both sides.
    """
    connection = upstream.connection
    application: Any = None if connection is None else connection.protocol
    client: Any = request.protocol
    if application is None or client is None:
        raise ConnectionResetError("one side is gone")
    await answer.prepare(request)
    to_application = http.StreamWriter(application, asyncio.get_running_loop())
    from_client, from_application = _Inlet(client), _Inlet(application)
    client.set_parser(from_client)
    application.set_parser(from_application, from_application.stream)
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        ways = (
            tasks.create_task(_pump(from_client.stream, to_application.write, over), name="relay-in"),
            tasks.create_task(_pump(from_application.stream, answer.write, over), name="relay-out"),
        )
        await over.wait()
        for way in ways:
            way.cancel()
    answer.force_close()


async def _pump(
    source: aio_streams.StreamReader, write: Callable[[bytes], Awaitable[None]], over: asyncio.Event
) -> None:
    try:
        while data := await source.readany():
            await write(data)
    except (aiohttp.ClientError, OSError):
        pass  # a side that is gone; how such connections end
    finally:
        over.set()
