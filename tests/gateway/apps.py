"""A machine with an application in it: the daemon's own `port.open` on a real bus, and a real HTTP server behind it."""

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import yarl
from aiohttp import web

from paddock.bus import clock, responder
from paddock.contracts import ids, phases, subjects
from paddock.daemon import port_open
from tests.gateway import door

RawServe = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class App:
    """An application that remembers what it was asked. `answers` are handlers by path."""

    def __init__(self) -> None:
        self.asked: list[web.BaseRequest] = []
        self.bodies: list[bytes] = []
        self.answers: dict[str, Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]] = {}
        self.connections = 0
        self.gone: collections.deque[str] = collections.deque()
        self.port = 0

    @property
    def last(self) -> web.BaseRequest:
        return self.asked[-1]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request)
        answer = self.answers.get(request.path)
        if answer is not None:
            try:
                return await answer(request)
            except asyncio.CancelledError:
                self.gone.append(request.path)
                raise
        self.bodies.append(b"".join([data async for data in request.content.iter_any()]))
        return web.Response(text=f"{request.method} {request.raw_path}")

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = web.Server(self.handle, access_log=None, handler_cancellation=True, auto_decompress=False)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        self.server = server
        try:
            yield self.port
        finally:
            await runner.cleanup()


@contextlib.asynccontextmanager
async def raw(serve: RawServe) -> AsyncIterator[int]:
    """A server of bytes; its port."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Machine:
    """An active machine of one gateway."""

    def __init__(self, gateway: door.Door, machine_id: str) -> None:
        self.id = machine_id
        self.gateway = gateway
        self.calls: responder.Responder | None = None
        self.nc: Any = None

    @property
    def tunnels(self) -> int:
        """Connections to ports that are open now."""
        return 0 if self.calls is None else self.calls.open_channels

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator["Machine"]:
        """On the bus until the block ends."""
        sandbox = ids.sandbox_id(ids.MachineId(self.id), 1)
        self.nc = nc = await self.gateway.ground.bus.daemon(sandbox)
        wall = clock.SystemClock()
        async with asyncio.TaskGroup() as tasks:
            self.calls = responder.Responder(
                nc,
                subject=subjects.rpc_call(sandbox),
                handlers=responder.table(port_open.handler()),
                clock=wall,
                tasks=tasks,
            )
            control = responder.Responder(
                nc,
                subject=subjects.rpc_control(sandbox),
                handlers=responder.table(self.calls.credit_handler()),
                clock=wall,
                tasks=tasks,
            )
            await control.start()
            await self.calls.start()
            await nc.flush()
            try:
                yield self
            finally:
                await self.calls.drain(0.0)
                await control.drain(0.0)
                await nc.close()

    def cut(self) -> None:
        """Break its connection to the bus; it comes back on its own."""
        self.nc._transport._io_writer.transport.abort()

    def host(self, port: int) -> str:
        return f"{port}--{self.id}.localhost:{self.gateway_port}"

    async def say(self, head: str, body: bytes = b"", *, until: bytes = b"") -> bytes:
        """What the gateway answers to these lines and bytes, until it closes or has said `until`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway_port)
        try:
            writer.write("\r\n".join([*head.splitlines(), "", ""]).encode("latin-1") + body)
            async with asyncio.timeout(10):
                said = b""
                while not (until and until in said) and (more := await reader.read(65536)):
                    said += more
            return said
        finally:
            writer.close()

    @property
    def gateway_port(self) -> int:
        return int(self.gateway.url.rpartition(":")[2])

    def path(self, port: int, path: str = "/") -> str:
        return f"/machines/{self.id}/ports/{port}{path}"

    def ask(
        self, port: int, target: str = "/", method: str = "GET", **options: Any
    ) -> "aiohttp.client._RequestContextManager":
        """Ask by host, with the access token; `headers` are added, and one that is None is left out."""
        return self._asked(target, {"Host": self.host(port)}, method, options)

    def ask_by_path(
        self, port: int, target: str = "/", method: str = "GET", **options: Any
    ) -> "aiohttp.client._RequestContextManager":
        return self._asked(self.path(port, target), {}, method, options)

    def _asked(
        self, target: str, more: dict[str, str], method: str, options: dict[str, Any]
    ) -> "aiohttp.client._RequestContextManager":
        given = {**more, **self.gateway.headers, **options.pop("headers", {})}
        headers = {name: value for name, value in given.items() if value is not None}
        options = {"allow_redirects": False, "auto_decompress": False, **options}
        url = yarl.URL(f"{self.gateway.url}{target}", encoded=True)
        return self.gateway.http.request(method, url, headers=headers, **options)


@contextlib.asynccontextmanager
async def machine(gateway: door.Door) -> AsyncIterator[Machine]:
    """A machine that is up."""
    machine_id = await gateway.machine_in(phases.Phase.ACTIVE)
    async with Machine(gateway, machine_id).up() as up:
        yield up
