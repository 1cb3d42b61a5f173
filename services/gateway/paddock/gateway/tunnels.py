"""Connections to ports inside machines, through channels of the bus, as an HTTP client wants them.

A connection is a transport whose bytes are a channel's frames, with little kept in between: who reads slowly slows the
application and nobody else. A tunnel that breaks is a connection that was reset, never one that ended in order. For
`port_proxy`; streams of people's own (`machine.portOpen`) do not come this way.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Final

import aiohttp
from aiohttp import client_proto

from paddock.bus import channel_client, outcomes
from paddock.contracts import errors, ports, rpc
from paddock.gateway import machine_link

OPEN_S: Final = 8.0
"""Of which the machine's daemon gives the port five."""
IDLE_S: Final = 4.0
"""How long a connection is kept for the next request; applications keep theirs for 5 s and more."""
PER_PORT_MAX: Final = 128
"""Connections to one port at once; the next request waits."""
UNSENT_BYTES_MAX: Final = 2 * rpc.FRAME_BYTES
CLOSE_S: Final = 2.0
"""For what was written before a connection was closed to go on its way, and for the application to close, too."""

Channel = channel_client.OpenChannel[ports.Open, ports.Closed]


class Tunnel(asyncio.Transport):
    """One connection, as its protocol sees it."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._unsent = bytearray()
        self._has_work, self._may_read, self._is_over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._may_read.set()
        self._is_closing = self._is_writing_paused = self._ends_here = False
        self._error: ConnectionResetError | None = None
        self._close_limit: asyncio.TimerHandle | None = None

    async def run(self, channel: Channel) -> None:
        """Move bytes both ways until either side ends it. The protocol hears of the end, however that comes."""
        error: ConnectionResetError | None = ConnectionResetError("the tunnel was cut")
        self._protocol.connection_made(self)
        try:
            async with asyncio.TaskGroup() as tasks:
                ways = (
                    tasks.create_task(self._guarded(self._receive(channel)), name="tunnel-receive"),
                    tasks.create_task(self._guarded(self._send(channel)), name="tunnel-send"),
                )
                await self._is_over.wait()
                for way in ways:
                    way.cancel()
            error = self._error
        finally:
            self._is_closing = True
            if self._close_limit is not None:
                self._close_limit.cancel()
            self._protocol.connection_lost(error)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing or self._ends_here:
            return
        self._unsent += data
        self._has_work.set()
        if len(self._unsent) > UNSENT_BYTES_MAX and not self._is_writing_paused:
            self._is_writing_paused = True
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._ends_here = True
        self._has_work.set()

    def pause_reading(self) -> None:
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()

    def is_reading(self) -> bool:
        return self._may_read.is_set() and not self._is_closing

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        """Send what was written, and end in order; an application that goes on talking is cut off."""
        if not self._is_closing:
            self._is_closing = True
            self._has_work.set()
            self._may_read.set()
            self._close_limit = asyncio.get_running_loop().call_later(CLOSE_S, self._is_over.set)

    def abort(self) -> None:
        self._is_closing = True
        self._is_over.set()

    async def _guarded(self, way: Awaitable[None]) -> None:
        try:
            await way
        except errors.Fault as fault:
            self._error = ConnectionResetError(fault.message)
            self._is_over.set()

    async def _receive(self, channel: Channel) -> None:
        # A frame is confirmed when the next is asked for: not before the protocol wants more.
        while (frame := await channel.receive()) is not None:
            await self._may_read.wait()
            if self._is_closing:
                self._is_over.set()
                return
            if frame.data:
                self._protocol.data_received(bytes(frame.data))
            await self._may_read.wait()
        if channel.is_over and channel.end.reset:
            raise errors.ChannelBroken("the application reset the connection")
        if not self._is_closing:
            self._protocol.eof_received()
            self.close()
        await channel.finish()
        self._is_over.set()

    async def _send(self, channel: Channel) -> None:
        while not (self._ends_here or self._is_closing) or self._unsent:
            await self._has_work.wait()
            self._has_work.clear()
            while self._unsent:
                data = bytes(self._unsent[: rpc.FRAME_BYTES])
                del self._unsent[: rpc.FRAME_BYTES]
                await channel.send(data)
                if self._is_writing_paused and len(self._unsent) <= UNSENT_BYTES_MAX // 2:
                    self._is_writing_paused = False
                    self._protocol.resume_writing()
        await channel.send_eof()


class Tunnels:
    """All tunnels of one gateway; they live inside `running`."""

    def __init__(self, link: machine_link.MachineLink) -> None:
        self._link = link
        self._tasks: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """Tunnels that are open or being opened."""
        return len(self._running)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tunnels can be opened in this block, and are cut at its end."""
        async with asyncio.TaskGroup() as self._tasks:
            try:
                yield
            finally:
                for task in tuple(self._running):
                    task.cancel()

    async def connect(self, machine_id: str, port: int, protocol: client_proto.ResponseHandler) -> None:
        """Connect `protocol` to a port.

        Raises:
            errors.PortRefused: Nothing listens there.
            errors.MachineOffline: Its daemon is not connected.
            errors.Fault: It could not be done; the subclass says why.

        Cancellation: safe; nothing stays open.
        """
        if self._tasks is None:
            raise errors.ShuttingDown
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = self._tasks.create_task(self._carry(machine_id, port, protocol, opened), name="tunnel")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await opened
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def _carry(
        self,
        machine_id: str,
        port: int,
        protocol: client_proto.ResponseHandler,
        opened: "asyncio.Future[None]",
    ) -> None:
        async def through() -> None:
            asked = ports.OpenParams(port=port)
            async with self._link.open(machine_id, ports.OPEN, asked, timeout_s=OPEN_S) as channel:
                running = Tunnel(protocol).run(channel)
                opened.set_result(None)
                await running

        try:
            outcome = await outcomes.settled(through(), method=ports.OPEN.name, request_id=machine_id)
            if isinstance(outcome, errors.Fault) and not opened.done():
                opened.set_exception(outcome)
        finally:
            opened.cancel()


class _Protocol(client_proto.ResponseHandler):
    """As aiohttp has it, but a body that lasts until the connection's end is not whole when the connection broke."""

    def connection_lost(self, exc: BaseException | None) -> None:
        if exc is not None and self._payload is not None:
            self._payload.set_exception(aiohttp.ClientPayloadError(str(exc)))
        super().connection_lost(exc)


class Connector(aiohttp.BaseConnector):
    """Gives an aiohttp session its connections: the host of a URL is a machine, its port the port there."""

    def __init__(self, tunnels: Tunnels, *, is_pooled: bool) -> None:
        """Make one.

        Args:
            tunnels: Where connections come from.
            is_pooled: Keep connections for a while; else each carries one request.
        """
        if is_pooled:
            super().__init__(keepalive_timeout=IDLE_S, limit=0, limit_per_host=PER_PORT_MAX)
        else:
            super().__init__(force_close=True, limit=0, limit_per_host=PER_PORT_MAX)
        self._tunnels = tunnels

    async def _create_connection(
        self, req: aiohttp.ClientRequest, _traces: Any, _timeout: aiohttp.ClientTimeout
    ) -> client_proto.ResponseHandler:
        protocol = _Protocol(self._loop)
        await self._tunnels.connect(str(req.url.raw_host), req.url.port or 0, protocol)
        return protocol
