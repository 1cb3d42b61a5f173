"""Connections to a test's bus, by who connects: opened on demand, closed together, their refusals kept."""

import asyncio
import contextlib
from typing import Any

from paddock.bus import rights, safeclient
from paddock.contracts import ids
from tests.support import nats_server


class Connections:
    """Opens clients with exactly the rights of production; `refusals` is what the server would not let them do."""

    def __init__(self, server: nats_server.NatsServer) -> None:
        self._server = server
        self._open = contextlib.AsyncExitStack()
        self.refusals: list[str] = []
        self._refused = asyncio.Event()

    async def service(self, name: rights.ServiceName, **options: Any) -> safeclient.SafeClient:
        return await self.connect(name, self._server.realm.service_creds(name), **options)

    async def daemon(self, sandbox: str, **options: Any) -> safeclient.SafeClient:
        return await self.connect(sandbox, self._server.daemon_creds(sandbox).text, **options)

    async def monitor(self, project: str) -> safeclient.SafeClient:
        return await self.connect("monitor", self._server.realm.monitor_creds(ids.ProjectId(project)))

    async def onlooker(self) -> safeclient.SafeClient:
        """May do everything in APP; never what is tested."""
        return await self.connect("onlooker", self._server.onlooker_creds())

    async def connect(self, name: str, creds: str, **options: Any) -> safeclient.SafeClient:
        """Connect as `name` with `creds`; options are those of `safeclient.connect`."""

        async def keep(error: Exception) -> None:
            self.refusals.append(str(error))
            self._refused.set()

        settings: dict[str, Any] = {"pending_size": 2 << 20, "reconnect_jitter_s": 0.02, "timeout_s": 5}
        settings |= {"inbox_prefix": rights.inbox_prefix(name), "error_cb": keep, **options}
        client = await safeclient.connect(self._server.url, name=name, creds=creds, **settings)
        self._open.push_async_callback(client.close)
        return client

    async def refused(self, subject: str) -> None:
        """Wait until the server has refused `subject`: what was tried before it is judged by then."""
        async with asyncio.timeout(5):
            while not any(f'"{subject}"' in text for text in self.refusals):
                self._refused.clear()
                await self._refused.wait()

    async def close(self) -> None:
        await self._open.aclose()
