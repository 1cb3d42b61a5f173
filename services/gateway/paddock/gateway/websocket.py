"""`GET /ws`: JSON-RPC over a connection that stays, and the only place to follow events.

Messages are carried out at the same time, at most `AT_ONCE` of them; then reading waits. A client that does not read what
it follows slows its own subscriptions and nothing else. A connection whose token ends is closed within seconds.
"""

import asyncio
import contextlib
from typing import Final

import aiohttp
from aiohttp import web

from paddock.bus import lifecycle, logs
from paddock.contracts import errors
from paddock.gateway import auth, events_feed, jsonrpc, subscriptions

log = logs.get(__name__)

AT_ONCE: Final = 64
PING_S: Final = 20.0
"""A client that does not answer pings is gone."""
TOKEN_CHECK_S: Final = auth.KEPT_S
TOKEN_ENDED: Final = 4401
"""Close code: the access token is no longer valid."""
_DATA: Final = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)


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
        socket = web.WebSocketResponse(heartbeat=PING_S, max_msg_size=self._message_bytes_max, compress=False)
        if not socket.can_prepare(request).ok:
            return web.Response(status=426, headers={"Upgrade": "websocket"}, text="this is a WebSocket\n")
        await socket.prepare(request)
        log.debug("socket_opened", caller=caller.id, request_id=request_id)
        async with asyncio.TaskGroup() as tasks:
            connection = _Connection(socket, self._dispatcher, self._feed, tasks, caller, request_id)
            watch = tasks.create_task(
                self._close_in_time(connection, request.headers.get("Authorization")), name="socket-watch"
            )
            try:
                await connection.read()
            finally:
                watch.cancel()
                connection.end()
        return socket

    async def _close_in_time(self, connection: "_Connection", header: str | None) -> None:
        """Close it when the gateway stops or the token is no longer good."""
        while await lifecycle.pause(TOKEN_CHECK_S, self._stop):
            try:
                await self._authenticator.caller(header)
            except errors.Unauthenticated as fault:
                await connection.close(TOKEN_ENDED, fault)
                return
            except errors.StoreDown:
                continue
        await connection.finish()
        await connection.close(aiohttp.WSCloseCode.GOING_AWAY, errors.ShuttingDown())


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
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._answering: set[asyncio.Task[None]] = set()

    async def read(self) -> None:
        """Take messages until the connection ends."""
        number = 0
        async for message in self._socket:
            if message.type not in _DATA:
                continue
            number += 1
            body = (
                message.data.encode(errors="surrogatepass") if isinstance(message.data, str) else message.data
            )
            await self._slots.acquire()
            task = self._tasks.create_task(
                self._answer(body, f"{self._request_id}.{number}"), name="socket-call"
            )
            self._answering.add(task)
            task.add_done_callback(self._answered)

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
        for task in tuple(self._answering):
            task.cancel()

    def _answered(self, task: "asyncio.Task[None]") -> None:
        self._answering.discard(task)
        self._slots.release()

    async def _answer(self, body: bytes, request_id: str) -> None:
        logs.bind(request_id=request_id)
        call = jsonrpc.Call(self._caller, request_id, self._subscriptions)
        answer = await self._dispatcher.answer(body, call)
        if answer.body is not None:
            await self._send(answer.body)
        self._subscriptions.begin()

    async def _send(self, body: bytes) -> None:
        # A connection that broke is noticed by the reader, which ends everything of it.
        with contextlib.suppress(ConnectionError):
            await self._socket.send_str(body.decode())
