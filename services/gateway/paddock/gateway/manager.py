"""The gateway's loops: the HTTP server, and the feed of events."""

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web

from paddock.bus import lifecycle, logs
from paddock.contracts import errors
from paddock.gateway import (
    auth,
    events_feed,
    executions,
    http,
    jsonrpc,
    last_seen,
    machine_cache,
    machine_link,
    methods,
    port_door,
    readiness,
    settings,
    waiting,
    websocket,
)
from paddock.store import process

log = logs.get(__name__)

BACKLOG: Final = 1024
"""Connections the kernel keeps for us while we are busy."""

Listening = Callable[[str, int], None]
"""Told the address and port once requests are taken."""


async def serve(
    context: process.Context,
    given: settings.Settings,
    stop: asyncio.Event,
    *,
    on_listening: Listening | None = None,
) -> None:
    """Answer people until `stop`: then refuse what is new, finish what was accepted, close what stays open."""
    gateway = Gateway(context, given)

    async def http_server(stop: asyncio.Event) -> None:
        await gateway.serve_http(stop, on_listening)

    await lifecycle.run(
        {"ports": gateway.ports.proxy.run, "http": http_server, "events": gateway.feed.run},
        stop,
        drain_s=context.drain_s + 1.0,
    )


class Gateway:
    """The parts of one gateway, put together."""

    def __init__(self, context: process.Context, given: settings.Settings) -> None:
        self._context, self._given = context, given
        self._closing = asyncio.Event()
        self.feed = events_feed.EventsFeed(context.stream)
        self._cache = machine_cache.MachineCache(context.store)
        self._waits = waiting.Waiting(context.store, self.feed)
        seen = last_seen.LastSeen(context.presence)
        self._link = machine_link.MachineLink(self._cache, context.caller, seen, context.clock)
        self._commands = executions.Executions(self._link, context.clock)
        authenticator = auth.Authenticator(context.store)
        self.ports = port_door.PortDoor.of(context, given, authenticator, self._link)
        routes = methods.table(
            context,
            given,
            authenticator=authenticator,
            cache=self._cache,
            waits=self._waits,
            link=self._link,
            commands=self._commands,
            urls=self.ports.urls,
        )
        self._dispatcher = jsonrpc.Dispatcher(routes, in_flight_max=given.gateway_in_flight_max)
        sockets = websocket.Sockets(
            self._dispatcher, authenticator, self.feed, self._closing, message_bytes_max=http.BODY_BYTES_MAX
        )
        ready = readiness.Readiness(
            {
                "store": context.store.ping,
                "bus": self._check_bus,
                "events": self._check_events,
                "stopping": self._check_open,
            }
        )
        self._surface = http.Surface(self._dispatcher, authenticator, sockets, ready, self.ports.proxy)

    async def serve_http(self, stop: asyncio.Event, on_listening: Listening | None = None) -> None:
        """Listen until `stop`, then drain."""
        runner = web.ServerRunner(self._surface.server(), shutdown_timeout=1.0)
        await runner.setup()
        try:
            await self._serve(runner, stop, on_listening)
        finally:
            await runner.cleanup()
        self.ports.proxy.end()

    async def _serve(
        self, runner: web.ServerRunner, stop: asyncio.Event, on_listening: Listening | None
    ) -> None:
        with self.feed.listening(self._cache.on_event):
            site = await self._listen(runner)
            host, port = runner.addresses[0][:2]
            self.ports.where.listening(host, port)
            log.info("gateway_listening", host=host, port=port)
            if on_listening is not None:
                on_listening(host, port)
            await stop.wait()
            self._closing.set()
            self._waits.end()
            self._commands.end()
            await site.stop()
            async with asyncio.TaskGroup() as drains:
                drain_s = self._context.drain_s
                drains.create_task(self._dispatcher.drain(drain_s), name="drain-calls")
                drains.create_task(self.ports.proxy.drain(drain_s), name="drain-ports")

    async def _listen(self, runner: web.ServerRunner) -> web.TCPSite:
        host, port = self._given.gateway_host, self._given.gateway_port
        site = web.TCPSite(runner, host, port, backlog=BACKLOG)
        try:
            await site.start()
        except OSError as error:
            raise errors.InvalidParams(f"cannot listen on {host}:{port}: {error.strerror}") from error
        return site

    async def _check_bus(self) -> None:
        if not (self._context.rpc.is_connected and self._context.stream.is_connected):
            raise errors.BusDown

    async def _check_events(self) -> None:
        if not self.feed.is_live:
            raise errors.BusDown("the event stream cannot be read")

    async def _check_open(self) -> None:
        if self._closing.is_set():
            raise errors.ShuttingDown
