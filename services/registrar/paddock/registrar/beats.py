"""Heartbeats on their way from the bus into Redis, many in one round trip."""

import asyncio

from nats.aio import msg as nats_msg

from paddock.bus import lifecycle, logs
from paddock.contracts import errors, ids, subjects
from paddock.store import process

log = logs.get(__name__)

FLUSH_S = 1.0


class Beats:
    """Collects beats; the time is when they arrived here, for daemons' clocks may be anything."""

    def __init__(self, context: process.Context) -> None:
        self._context = context
        self._seen: dict[ids.SandboxId, int] = {}

    async def run(self, stop: asyncio.Event) -> None:
        subscription = await self._context.rpc.subscribe(
            subjects.REPORT_BEATS, queue="registrar", cb=self._on_beat
        )
        async for _ in lifecycle.every(FLUSH_S, stop):
            await self._flush()
        await subscription.unsubscribe()
        await self._flush()

    async def _on_beat(self, message: nats_msg.Msg) -> None:
        # The subject is the identity: the server lets a daemon publish only its own.
        self._seen[subjects.sandbox_of(message.subject)] = self._context.clock.now_ms()

    async def _flush(self) -> None:
        if not self._seen:
            return
        seen, self._seen = self._seen, {}
        try:
            await self._context.presence.beat(seen)
        except errors.StoreDown as fault:
            # The next beat of each is at most ten seconds away; nothing is worth keeping.
            log.warning("beats_lost", count=len(seen), detail=fault.detail)
