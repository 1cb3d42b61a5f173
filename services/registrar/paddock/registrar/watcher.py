"""Who is on the bus: turns beats, and their absence, into `connection` and its event.

One watcher works at a time, under a lease. It says nobody is away within two beats of its own start, of a bus that was
down or of an empty Redis: it has not listened long enough to know.
"""

import asyncio

import sqlalchemy as sa

from paddock.bus import lifecycle, logs
from paddock.contracts import errors, ids, phases
from paddock.store import engine, leases, machines, process, schema, stage_runs

log = logs.get(__name__)

PERIOD_S = 2.0
LEASE = "connection-watcher"
MISSED_BEATS = 2
KEPT_MS = 7 * 24 * 3600 * 1000
"""Of a beat, for who asks when a machine was last seen."""


class Watcher:
    """Compares the beats with what the machines' rows say."""

    def __init__(self, context: process.Context, *, heartbeat_s: float) -> None:
        self._context = context
        self._silence_ms = int(heartbeat_s * 1000 * MISSED_BEATS)
        self._listening_since: int | None = None

    async def run(self, stop: asyncio.Event) -> None:
        unwatch = self._context.rpc.watch(lost=self._heard_nothing)
        async for _ in lifecycle.every(PERIOD_S, stop):
            try:
                await self._look()
            except errors.StoreDown as fault:
                self._heard_nothing()
                log.warning("watch_failed", error=fault.message, detail=fault.detail)
        unwatch()
        async with self._context.store.write() as tx:
            await leases.release(tx, LEASE, self._context.owner)

    def _heard_nothing(self) -> None:
        """Silence was ours for a while; two beats from now on we know again."""
        self._listening_since = None

    async def _look(self) -> None:
        async with self._context.store.write() as tx:
            held = await leases.acquire(tx, LEASE, self._context.owner, lease_ms=int(PERIOD_S * 3000))
        if held is None or not self._context.rpc.is_connected:
            self._heard_nothing()
            return
        now = self._context.clock.now_ms()
        if self._listening_since is None:
            self._listening_since = now
        beating = await self._context.presence.beating_since(now - self._silence_ms)
        await self._context.presence.forget(before_ms=now - KEPT_MS)
        async with self._context.store.read() as tx:
            current = await _connections(tx)
        back = [s for s in beating if s in current and current[s] is not phases.Connection.ONLINE]
        away = await self._away(now, current, beating)
        await self._record(back, phases.Connection.ONLINE, beating)
        await self._record(list(away), phases.Connection.OFFLINE, away)

    async def _away(
        self, now: int, current: dict[ids.SandboxId, phases.Connection], beating: dict[ids.SandboxId, int]
    ) -> dict[ids.SandboxId, int]:
        """Those that were online and are silent, with their last beat; empty while we cannot know."""
        # Asked at every look, so that an emptied Redis counts from now, and one that never heard a beat counts too.
        listened_since = max(self._listening_since or now, await self._context.presence.listening_since(now))
        if now - listened_since < self._silence_ms:
            return {}
        silent = [
            s for s, is_now in current.items() if is_now is phases.Connection.ONLINE and s not in beating
        ]
        last = await self._context.presence.last_beats(silent)
        return {s: last.get(s, 0) for s in silent}

    async def _record(
        self, changed: list[ids.SandboxId], now: phases.Connection, beats: dict[ids.SandboxId, int]
    ) -> None:
        for sandbox in changed:
            machine_id, generation = ids.split_sandbox(sandbox)
            async with self._context.store.write(actor=self._context.owner) as tx:
                machine = await machines.lock(tx, machine_id)
                if machine is None or machine.generation != generation:
                    continue
                seen_at = beats[sandbox] or machine.last_seen_at or machine.created_at
                if await machines.set_connection(tx, machine_id, now, last_seen_at=seen_at):
                    await _look_closer(tx, machine_id)
                    log.info("connection_changed", machine_id=machine_id, connection=now)


async def _look_closer(tx: engine.Tx, machine_id: ids.MachineId) -> None:
    """Have an active machine probed: its health says why it is away, and is well again when it is back."""
    machine = await machines.lock(tx, machine_id)
    if machine is not None and machine.phase is phases.Phase.ACTIVE and machine.is_env_applied:
        await stage_runs.queue(tx, machine, phases.Stage.PROBE)


async def _connections(tx: engine.Tx) -> dict[ids.SandboxId, phases.Connection]:
    table = schema.machines
    rows = await tx.rows(
        sa.select(table.c.id, table.c.generation, table.c.connection).where(
            table.c.phase.not_in([phases.Phase.DELETING, phases.Phase.DELETED, phases.Phase.CREATED])
        )
    )
    return {ids.sandbox_id(ids.MachineId(r.id), r.generation): phases.Connection(r.connection) for r in rows}
