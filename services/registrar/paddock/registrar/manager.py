"""The registrar's loops: reports, heartbeats, credentials, the outbox relay and the connection watcher."""

import asyncio

from paddock.bus import lifecycle, logs, responder
from paddock.contracts import daemon, errors, services, subjects
from paddock.registrar import beats, credentials, outbox_relay, reports, watcher
from paddock.registrar.settings import Settings
from paddock.store import leases, process

log = logs.get(__name__)

ALIVE_S = 5.0
"""Between two signs of life in the database; the limits of booting machines stand still without them."""
ALIVE_LEASE = "registrar-alive"


async def serve(context: process.Context, settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop`."""
    desk = reports.Desk(context)
    issuer = credentials.Issuer(context, settings)
    heard = beats.Beats(context)

    async def answer(subject: str, queue: str, *handlers: responder.Handler) -> None:
        async with asyncio.TaskGroup() as tasks:
            server = responder.Responder(
                context.rpc,
                subject=subject,
                queue=queue,
                handlers=responder.table(*handlers),
                clock=context.clock,
                tasks=tasks,
                max_in_flight=1000,
            )
            await server.serve(stop, drain_s=context.drain_s)

    async def alive(stop: asyncio.Event) -> None:
        name = f"{ALIVE_LEASE}-{context.owner}"
        async for _ in lifecycle.every(ALIVE_S, stop):
            try:
                async with context.store.write() as tx:
                    await leases.acquire(tx, name, context.owner, lease_ms=int(ALIVE_S * 3000))
            except errors.StoreDown as fault:
                log.warning("sign_of_life_not_written", detail=fault.detail)

    loops: dict[str, lifecycle.Loop] = {
        "reports": lambda _stop: answer(
            subjects.REPORT_CALLS, "registrar", responder.handler(daemon.READY, desk.ready)
        ),
        "credentials": lambda _stop: answer(
            subjects.REGISTRAR_CALL, "registrar", responder.handler(services.ISSUE_CREDENTIAL, issuer.issue)
        ),
        "beats": heard.run,
        "relay": outbox_relay.Relay(context).run,
        "watcher": watcher.Watcher(context, heartbeat_s=settings.registrar_heartbeat_s).run,
        "alive": alive,
    }
    await lifecycle.run(loops, stop, drain_s=context.drain_s)
