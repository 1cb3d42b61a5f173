"""A gateway that listens, and a caller of it with a valid token."""

import asyncio
import contextlib
import io
import itertools
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec

from paddock.bus import lifecycle
from paddock.contracts import phases
from paddock.gateway import manager, settings
from paddock.store import machines, process, tokens
from tests.support import house


class Door:
    """Asks one gateway."""

    def __init__(
        self,
        ground: house.House,
        context: process.Context,
        url: str,
        token: str,
        http: aiohttp.ClientSession,
        stop: asyncio.Event,
    ) -> None:
        self.ground, self.context, self.url, self.token, self.http = ground, context, url, token, http
        self.stop = stop
        self._ids = itertools.count(1)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def post(self, body: bytes, **headers: str) -> tuple[int, bytes]:
        """Status and body of one POST /rpc."""
        data = io.BytesIO(body)  # plain bytes of some size make aiohttp's client warn
        async with self.http.post(
            f"{self.url}/rpc", data=data, headers={**self.headers, **headers}
        ) as answer:
            return answer.status, await answer.read()

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The whole response to one call; members are named as on the wire."""
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        _, body = await self.post(msgspec.json.encode(request))
        response: dict[str, Any] = msgspec.json.decode(body)
        assert response["id"] == request["id"], response
        return response

    async def call(self, method: str, **params: Any) -> Any:
        """The result of one call that must succeed."""
        response = await self.ask(method, **params)
        assert "error" not in response, response
        return response["result"]

    async def refused(self, method: str, **params: Any) -> dict[str, Any]:
        """The error of one call that must fail."""
        response = await self.ask(method, **params)
        assert "error" in response, response
        error: dict[str, Any] = response["error"]
        return error

    @contextlib.asynccontextmanager
    async def socket(self) -> AsyncIterator["Socket"]:
        async with self.http.ws_connect(f"{self.url}/ws", headers=self.headers) as ws:
            yield Socket(ws)

    async def project(self, **more: Any) -> str:
        """A project's id."""
        made = await self.call("project.create", **{"name": "demo", **more})
        return str(made["id"])

    async def machine_in(self, phase: phases.Phase, project: str | None = None) -> str:
        """A machine put into a phase by the moves that lead there."""
        project = project or await self.project()
        made = await self.call("machine.create", projectId=project)
        path = [phases.CLAIM, phases.BOOT, phases.SET_UP, phases.PROBE, phases.ACTIVATE]
        if phase in {phases.Phase.FAILED, phases.Phase.DELETING}:
            path = [phases.FAIL if phase is phases.Phase.FAILED else phases.DELETE]
        async with self.ground.store.write(actor="test") as tx:
            for way in path:
                if phase is phases.Phase.CREATED:
                    break
                moved = await machines.move(tx, made["id"], way)
                assert moved is not None
                if moved.phase is phase:
                    break
        return str(made["id"])


class Socket:
    """One WebSocket: calls, and the notifications that came."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.notifications: list[dict[str, Any]] = []
        self._ids = itertools.count(1)

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The whole response; notifications that come before it are kept."""
        request_id = next(self._ids)
        await self.ws.send_json({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        async with asyncio.timeout(5):
            while True:
                message = await self.ws.receive_json()
                if message.get("id") == request_id:
                    return dict(message)
                self.notifications.append(message)

    async def next(self) -> dict[str, Any]:
        """The next notification's parameters."""
        if not self.notifications:
            async with asyncio.timeout(5):
                self.notifications.append(await self.ws.receive_json())
        return dict(self.notifications.pop(0)["params"])


@contextlib.asynccontextmanager
async def opened(ground: house.House, **more: Any) -> AsyncIterator[Door]:
    """A gateway on this ground, with an admin's token."""
    given = ground.settings_for(settings.Settings, gateway_port=0, **more)
    listening: asyncio.Future[tuple[str, asyncio.Event]] = asyncio.get_running_loop().create_future()

    async def serve(context: process.Context, told: settings.Settings, stop: asyncio.Event) -> None:
        def on_listening(host: str, port: int) -> None:
            listening.set_result((f"http://{host}:{port}", stop))

        await manager.serve(context, told, stop, on_listening=on_listening)

    async with ground.store.write(actor="test") as tx:
        _, token = await tokens.create(tx, name="test")
    connector = aiohttp.TCPConnector(limit=0)
    async with ground.serving(given, serve) as context, aiohttp.ClientSession(connector=connector) as http:
        url, stop = await listening
        door = Door(ground, context, url, token, http, stop)
        async with asyncio.timeout(5):
            while (await http.get(f"{url}/readyz")).status != 200:
                await lifecycle.pause(0.01, asyncio.Event())
        yield door
