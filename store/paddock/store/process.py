"""What every service process is made of: settings in, a store, two bus connections, loops, and an orderly end.

`main(Settings, serve)` is a service's whole `__main__`. `serve` gets a `Context` and runs until `stop`; `paddock up` calls
the same `serve` with a context that shares one store.
"""

import asyncio
import contextlib
import dataclasses
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeAlias

import nats.errors
import uvloop

from paddock.bus import caller, clock, lifecycle, logs, rights, safeclient
from paddock.contracts import errors, subjects
from paddock.store import barriers, engine, presence
from paddock.store import settings as shared

log = logs.get(__name__)

CONNECT_S = 30.0
"""The first connection of a service; whoever supervises it starts it again after that."""
RECONNECT_JITTER_S = 0.1
"""Services are few, and all machines wait for them: they are back within two seconds of the bus, daemons within thirty."""
JETSTREAM_PENDING_BYTES = 2 * 1024 * 1024
EXIT_BAD_SETTINGS = 78


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What a service works with.

    `rpc` drops at once what it cannot send (a buffered request runs after its caller gave up); `stream` keeps it for
    JetStream. `owner` names this process in leases, history and events.
    """

    name: str
    owner: str
    node: str
    clock: clock.Clock
    store: engine.Store
    rpc: safeclient.SafeClient
    stream: safeclient.SafeClient
    caller: caller.Caller
    presence: presence.Presence
    barrier: barriers.Barrier
    lease_ms: int
    drain_s: float


Serve: TypeAlias = Callable[[Context, shared.SettingsT, asyncio.Event], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def open_context(
    settings: shared.ServiceSettings, *, store: engine.Store | None = None
) -> AsyncIterator[Context]:
    """Open what a service works with; closed in the reverse order.

    Args:
        store: A store to share; None opens one of its own.

    Raises:
        errors.BusDown: The bus did not answer within `CONNECT_S`.
        errors.InvalidParams: A setting does not do.
    """
    wall = clock.SystemClock()
    name = settings.service
    owner = f"{name}-{settings.node}-{secrets.token_hex(3)}"
    async with contextlib.AsyncExitStack() as stack:
        if store is None:
            url = settings.database.get_secret_value()
            store = await stack.enter_async_context(engine.open_store(url, settings.secret_box(), wall=wall))
        seen = await stack.enter_async_context(presence.open_presence(settings.redis.get_secret_value()))
        rpc = await _connect(stack, settings, owner, pending_size=0)
        stream = await _connect(stack, settings, owner, pending_size=JETSTREAM_PENDING_BYTES)
        asks = await stack.enter_async_context(caller.Caller(rpc, caller_id=owner, clock=wall))
        yield Context(
            name=name,
            owner=owner,
            node=settings.node,
            clock=wall,
            store=store,
            rpc=rpc,
            stream=stream,
            caller=asks,
            presence=seen,
            barrier=settings.barrier_here(),
            lease_ms=int(settings.lease_s * 1000),
            drain_s=settings.drain_s,
        )


async def _connect(
    stack: contextlib.AsyncExitStack, settings: shared.ServiceSettings, owner: str, *, pending_size: int
) -> safeclient.SafeClient:
    connection = await safeclient.connect(
        settings.nats,
        name=owner,
        creds=settings.credentials_file,
        inbox_prefix=rights.inbox_prefix(settings.service),
        pending_size=pending_size,
        timeout_s=CONNECT_S,
        reconnect_jitter_s=RECONNECT_JITTER_S,
    )
    stack.push_async_callback(connection.close)
    return connection


class Nudge:
    """Tells the relay that the outbox has news: at most one message in flight, and its failure reaches nobody.

    The relay looks by itself every second, so a lost nudge costs a second.
    """

    def __init__(self, bus: safeclient.SafeClient) -> None:
        self._bus = bus
        self._wakeup = lifecycle.Wakeup()

    def ring(self) -> None:
        """Call after a commit; never fails, never waits."""
        self._wakeup.set()

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if await self._wakeup.wait(60.0, stop):
                with contextlib.suppress(nats.errors.Error):
                    await self._bus.publish(subjects.NUDGE_OUTBOX, b"")


def main(settings_type: type[shared.SettingsT], serve: "Serve[shared.SettingsT]") -> None:
    """Run one service until SIGTERM or SIGINT; the process's whole `main`.

    Exits with 0 after an orderly stop, 78 when a setting does not do, 1 when something it needs is away for good.
    """
    try:
        settings = settings_type.load()
    except errors.InvalidParams as fault:
        sys.stderr.write(f"{fault.message}\n")
        sys.exit(EXIT_BAD_SETTINGS)
    logs.configure(settings.service, settings.log_level)
    try:
        uvloop.run(_serve_alone(settings, serve))
    except errors.Fault as fault:
        log.error("service_failed", error=fault.message, detail=fault.detail)  # noqa: TRY400 - expected, no traceback
        sys.exit(1)


async def _serve_alone(settings: shared.SettingsT, serve: "Serve[shared.SettingsT]") -> None:
    stop = asyncio.Event()
    lifecycle.on_signals(stop)
    async with open_context(settings) as context:
        nudge = Nudge(context.rpc)
        context.store.on_commit = nudge.ring
        log.info("service_started", owner=context.owner)
        # One loop more than the service's own: the nudge stops with it.
        await lifecycle.run(
            {settings.service: lambda stop: serve(context, settings, stop), "nudge": nudge.run},
            stop,
            drain_s=settings.drain_s + 5.0,
        )
    log.info("service_stopped", owner=context.owner)
