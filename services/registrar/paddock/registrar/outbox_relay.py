"""The outbox relay: events from the table into the stream, each lane in order, at least once.

One relay works at a time, under a lease, woken by a nudge after each commit and by itself every second. A row is marked
sent only after the stream's acknowledgement; its event id makes a repetition harmless. What the stream *refuses* five
times is parked and alarmed; what it did not answer is tried again, for ever.
"""

import asyncio
import collections
from collections.abc import Sequence

import nats.errors
import nats.js.errors
from nats.aio import msg as nats_msg

from paddock.bus import lifecycle, logs
from paddock.contracts import errors, subjects
from paddock.store import leases, outbox, process

log = logs.get(__name__)

LEASE = "outbox-relay"
LEASE_S = 6.0
LOOK_S = 1.0
PAUSE_S = 0.25
"""After the stream did not answer."""
BATCH = 500
IN_FLIGHT = 16
"""Lanes published at once; within one there is one at a time, for order."""
PUBLISH_S = 2.0
KEPT_MS = 24 * 3600 * 1000
FORGET_EVERY_S = 600.0


class Relay:
    """Publishes what waits."""

    def __init__(self, context: process.Context) -> None:
        self._context = context
        self._stream = context.stream.jetstream()
        self._news = lifecycle.Wakeup()
        self._leads_until = 0.0
        self._forget_at = 0.0
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def run(self, stop: asyncio.Event) -> None:
        subscription = await self._context.rpc.subscribe(subjects.NUDGE_OUTBOX, cb=self._on_nudge)
        unwatch = self._context.stream.watch(restored=self._news.set)
        while not stop.is_set():
            await self._news.wait(LOOK_S, stop)
            try:
                while not stop.is_set() and await self._leads() and await self._round(stop):
                    pass
            except errors.StoreDown as fault:
                log.warning("relay_store_away", detail=fault.detail)
        unwatch()
        await subscription.unsubscribe()
        async with self._context.store.write() as tx:
            await leases.release(tx, LEASE, self._context.owner)

    async def _on_nudge(self, _message: nats_msg.Msg) -> None:
        self._news.set()

    async def _leads(self) -> bool:
        now = self._context.clock.monotonic()
        if now < self._leads_until - LEASE_S / 2:
            return True
        async with self._context.store.write() as tx:
            held = await leases.acquire(tx, LEASE, self._context.owner, lease_ms=int(LEASE_S * 1000))
            if held is not None and now >= self._forget_at:
                self._forget_at = now + FORGET_EVERY_S
                await outbox.forget_sent(tx, older_than_ms=KEPT_MS)
        self._leads_until = 0.0 if held is None else now + LEASE_S
        return held is not None

    async def _round(self, stop: asyncio.Event) -> bool:
        """Publish one batch. Returns whether to look again at once."""
        if not self._context.stream.is_connected:
            return False  # woken when it is back; waiting for answers that cannot come only delays that
        async with self._context.store.read() as tx:
            waiting = await outbox.unsent(tx, limit=BATCH)
        if not waiting:
            return False
        lanes: dict[str, list[outbox.Row]] = collections.defaultdict(list)
        for row in waiting:
            lanes[row.lane].append(row)
        sent: list[int] = []
        async with asyncio.TaskGroup() as group:
            for rows in lanes.values():
                group.create_task(self._send_lane(rows, sent), name=f"outbox-{rows[0].lane}")
        if sent:
            async with self._context.store.write() as tx:
                await outbox.mark_sent(tx, sent)
        if len(sent) < len(waiting):
            await lifecycle.pause(PAUSE_S, stop)
        return True

    async def _send_lane(self, rows: Sequence[outbox.Row], sent: list[int]) -> None:
        for row in rows:
            async with self._slots:
                try:
                    await self._stream.publish(
                        row.subject, row.body, timeout=PUBLISH_S, headers={"Nats-Msg-Id": row.event_id}
                    )
                except nats.js.errors.NoStreamResponseError:
                    return
                except (nats.js.errors.APIError, nats.errors.MaxPayloadError) as error:
                    await self._refused(row, str(error))
                    return
                except (nats.errors.Error, TimeoutError, OSError) as error:
                    log.warning("outbox_delayed", lane=row.lane, error=type(error).__name__)
                    return
            sent.append(row.position)

    async def _refused(self, row: outbox.Row, error: str) -> None:
        async with self._context.store.write() as tx:
            is_parked = await outbox.mark_refused(tx, row.position, error)
        if is_parked:
            log.error("outbox_row_parked", event_id=row.event_id, subject=row.subject, error=error)
        else:
            log.warning("outbox_row_refused", event_id=row.event_id, subject=row.subject, error=error)
