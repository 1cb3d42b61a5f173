"""Everything on one machine, in one process: the servers as children, every service a loop of this process.

The machines are not ours to end: they run on when the stack stops, and find it again when it is back, because ports
and keys of the data folder stay. What stops is the control plane: services first, each finishing what it accepted,
then their connections, then the servers.
"""

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

from paddock.bus import accounts, lifecycle, logs
from paddock.gateway import manager as gateway
from paddock.gateway import settings as gateway_settings
from paddock.local import base, beside, data, ready, wiring
from paddock.prober import manager as prober
from paddock.prober import settings as prober_settings
from paddock.provisioner import manager as provisioner
from paddock.provisioner import settings as provisioner_settings
from paddock.registrar import manager as registrar
from paddock.registrar import settings as registrar_settings
from paddock.setup_pusher import manager as setup_pusher
from paddock.setup_pusher import settings as setup_pusher_settings
from paddock.store import engine, process
from paddock.store import settings as shared

log = logs.get(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    """A service: how its settings are read and what it runs. The types of the two belong together."""

    settings: type[shared.ServiceSettings]
    serve: Any


PARTS: Final[Mapping[wiring.ServiceName, _Part]] = {
    "registrar": _Part(registrar_settings.Settings, registrar.serve),
    "provisioner": _Part(provisioner_settings.Settings, provisioner.serve),
    "setup_pusher": _Part(setup_pusher_settings.Settings, setup_pusher.serve),
    "prober": _Part(prober_settings.Settings, prober.serve),
    "gateway": _Part(gateway_settings.Settings, gateway.serve),
}


class Stack:
    """A control plane. Used as `async with Stack(settings) as stack`; ready inside the block."""

    def __init__(self, settings: wiring.Settings) -> None:
        self.settings = settings
        self.folder = data.DataFolder(settings.data)
        self._running = contextlib.AsyncExitStack()
        self._base: base.Base | None = None

    async def __aenter__(self) -> Self:
        """Start everything.

        Raises:
            errors.InUse: Another stack uses the data folder.
            errors.NotFound: A program it needs is not here.
            errors.NoAnswer: A part did not become ready.
        """
        async with contextlib.AsyncExitStack() as begun:
            self._base = await begun.enter_async_context(base.open_base(self.folder, self.settings))
            await begun.enter_async_context(self._services(self._base.realm))
            await ready.wait(wiring.HOST, self._base.addresses.gateway_port)
            self._running = begun.pop_all()
        log.info("stack_ready", url=self.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._running.__aexit__(kind, error, trace)

    @property
    def base(self) -> base.Base:
        if self._base is None:
            raise RuntimeError("a Stack works inside `async with` only")
        return self._base

    @property
    def addresses(self) -> wiring.Addresses:
        return self.base.addresses

    @property
    def url(self) -> str:
        """Of the gateway."""
        return self.addresses.gateway

    def token(self) -> str:
        """The first access token's text, a secret."""
        return self.folder.admin_token_path.read_text(encoding="ascii").strip()

    @contextlib.asynccontextmanager
    async def _services(self, realm: accounts.Realm) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as opened:
            store = await opened.enter_async_context(
                engine.open_store(self.addresses.database, self.folder.secret_box())
            )
            loops: dict[str, lifecycle.Loop] = {}
            for name, part in PARTS.items():
                given = wiring.told(name, self.settings, self.addresses, self.folder, realm)
                settings = part.settings.load(**given)
                context = await opened.enter_async_context(process.open_context(settings, store=store))
                loops[name] = functools.partial(_serve, part, context, settings)
                if name == "registrar":  # any of them may say that the outbox has news
                    nudge = process.Nudge(context.rpc)
                    store.on_commit = nudge.ring
                    loops["nudge"] = nudge.run
            await opened.enter_async_context(beside.run(loops, drain_s=self.settings.drain_s + 5.0))
            yield


async def _serve(
    part: _Part, context: process.Context, settings: shared.ServiceSettings, stop: asyncio.Event
) -> None:
    await part.serve(context, settings, stop)
