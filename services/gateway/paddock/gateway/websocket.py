"""`GET /ws`: JSON-RPC over a connection that stays, and the only place for what goes on: events and streams.

Text messages are calls, carried out at the same time, at most `AT_ONCE` of them; then reading waits. Binary ones are frames
of streams. A client that does not read slows what is its own and nothing else. A connection whose token ends is closed
within seconds, and what cannot be read is refused without ending it.
"""

import asyncio
import contextlib
import socket as sockets
from typing import Final

import aiohttp
from aiohttp import web

from paddock.bus import lifecycle, logs
from paddock.contracts import errors
from paddock.gateway import auth, events_feed, jsonrpc, session, streams, subscriptions

log = logs.get(__name__)

AT_ONCE: Final = 64
PING_S: Final = 20.0
SILENCE_S: Final = 120.0
"""A client of which nothing was heard for so long, no answer to a ping either, is gone. One that reads slowly, or not for a
while, answers late: pings wait behind what it has not read, and that may be megabytes."""
TOKEN_CHECK_S: Final = auth.KEPT_S
TOKEN_ENDED: Final = 4401
"""Close code: the access token is no longer valid."""
CLOSE_S: Final = 2.0
"""What a client gets to take our last words."""
UNSENT_BYTES: Final = 256 * 1024
"""What may wait in the kernel of ours: answers to a slow client wait behind it."""


class Sockets:
    """Serves connections until `stop`, and then closes them."""

    def __init__(
        self,
        dispatcher: jsonrpc.Dispatcher,
        authenticator: auth.Authenticator,
        feed: events_feed.EventsFeed,
        stop: asyncio.Event,
        *,
        message_bytes_max: int,
    ) -> None:
        self._dispatcher, self._authenticator, self._feed = dispatcher, authenticator, feed
        self._stop, self._message_bytes_max = stop, message_bytes_max

    async def serve(
        self, request: web.BaseRequest, caller: auth.Caller, request_id: str
    ) -> web.StreamResponse:
        """Serve one connection to its end.

        Args:
            request: The upgrade.
            caller: Who asks; the proof in the request is looked at again while the connection stays.
            request_id: Of the upgrade; messages count on from it.
        """
        socket = web.WebSocketResponse(autoping=False, max_msg_size=self._message_bytes_max, compress=False)
        if not socket.can_prepare(request).ok:
            return web.Response(status=426, headers={"Upgrade": "websocket"}, text="this is a WebSocket\n")
        await socket.prepare(request)
        _keep_short(socket)
        log.debug("socket_opened", caller=caller.id, request_id=request_id)
        async with asyncio.TaskGroup() as tasks:
            connection = _Connection(socket, self._dispatcher, self._feed, tasks, caller, request_id)
            watch = tasks.create_task(self._close_in_time(connection, request), name="socket-watch")
            pings = tasks.create_task(connection.keep_alive(request, self._stop), name="socket-pings")
            try:
                await connection.read()
            finally:
                watch.cancel()
                pings.cancel()
                connection.end()
        return socket

    async def _close_in_time(self, connection: "_Connection", request: web.BaseRequest) -> None:
        """Close it when the gateway stops or the token is no longer good."""
        code, fault = await self._reason_to_close(request.headers.get("Authorization"))
        # One that does not read would keep us for ever.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await connection.shut(fault)
        if isinstance(fault, errors.ShuttingDown):
            await connection.finish()
        try:
            async with asyncio.timeout(CLOSE_S):
                await connection.close(code, fault)
        except TimeoutError:
            _abort(request)

    async def _reason_to_close(self, header: str | None) -> tuple[int, errors.Fault]:
        while await lifecycle.pause(TOKEN_CHECK_S, self._stop):
            try:
                await self._authenticator.caller(header)
            except errors.Unauthenticated as fault:
                return TOKEN_ENDED, fault
            except errors.StoreDown:
                continue
        return aiohttp.WSCloseCode.GOING_AWAY, errors.ShuttingDown()


class _Connection:
    """One socket: reads messages, answers each in its own task."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        dispatcher: jsonrpc.Dispatcher,
        feed: events_feed.EventsFeed,
        tasks: asyncio.TaskGroup,
        caller: auth.Caller,
        request_id: str,
    ) -> None:
        self._socket, self._dispatcher, self._tasks = socket, dispatcher, tasks
        self._caller, self._request_id = caller, request_id
        self._subscriptions = subscriptions.Subscriptions(feed, self._send, tasks)
        self._streams = streams.Streams(self._send, self._send_frame, tasks)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._answering: set[asyncio.Task[None]] = set()
        self._heard_at = asyncio.get_running_loop().time()

    async def read(self) -> None:
        """Take messages until the connection ends."""
        number, now = 0, asyncio.get_running_loop().time
        async for message in self._socket:
            self._heard_at = now()
            if message.type == aiohttp.WSMsgType.BINARY:
                await self._take(message.data)
                continue
            if message.type == aiohttp.WSMsgType.PING:
                await self._socket.pong(message.data)
            if message.type != aiohttp.WSMsgType.TEXT:
                continue
            number += 1
            body = message.data.encode(errors="surrogatepass")
            await self._slots.acquire()
            task = self._tasks.create_task(
                self._answer(body, f"{self._request_id}.{number}"), name="socket-call"
            )
            self._answering.add(task)
            task.add_done_callback(self._answered)

    async def keep_alive(self, request: web.BaseRequest, stop: asyncio.Event) -> None:
        """Ping it until `stop`, and break it off when nothing is heard."""
        while await lifecycle.pause(PING_S, stop):
            if asyncio.get_running_loop().time() - self._heard_at > SILENCE_S:
                log.debug("socket_silent", caller=self._caller.id, request_id=self._request_id)
                _abort(request)
                return
            if not request.protocol.writing_paused:
                with contextlib.suppress(ConnectionError):
                    await self._socket.ping()

    async def shut(self, fault: errors.Fault) -> None:
        """End its streams, and say why."""
        await self._streams.shut(fault)

    async def finish(self) -> None:
        """Wait until what was accepted is answered."""
        while self._answering:
            await asyncio.wait(self._answering)

    async def close(self, code: int, fault: errors.Fault) -> None:
        """Say why, and end it."""
        await self._socket.close(code=code, message=fault.kind.encode())

    def end(self) -> None:
        """Nobody waits for answers any more."""
        self._subscriptions.end()
        self._streams.end()
        for task in tuple(self._answering):
            task.cancel()

    def _answered(self, task: "asyncio.Task[None]") -> None:
        self._answering.discard(task)
        self._slots.release()

    async def _answer(self, body: bytes, request_id: str) -> None:
        logs.bind(request_id=request_id)
        message = session.Session(self._subscriptions, self._streams, request_id)
        answer = await self._dispatcher.answer(body, jsonrpc.Call(self._caller, request_id, message))
        if answer.body is not None:
            await self._send(answer.body)
        message.begin()

    async def _take(self, message: bytes) -> None:
        try:
            await self._streams.take(message)
        except errors.Fault as fault:
            await self._send(jsonrpc.error_body(fault))

    async def _send(self, body: bytes) -> None:
        # A connection that broke is noticed by the reader, which ends everything of it.
        with contextlib.suppress(ConnectionError):
            await self._socket.send_frame(body, aiohttp.WSMsgType.TEXT)

    async def _send_frame(self, frame: bytes) -> None:
        try:
            await self._socket.send_frame(frame, aiohttp.WSMsgType.BINARY)
        except ConnectionError:
            # Whoever sends must not go on as if it had arrived; the reader ends it at once.
            await asyncio.get_running_loop().create_future()


def _abort(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()


def _keep_short(socket: web.WebSocketResponse) -> None:
    connection = socket.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
