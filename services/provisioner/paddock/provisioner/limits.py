"""Phases have limits, and one process of the fleet keeps them.

A machine past its limit fails with the reason. Time in which nobody could have worked is given back: after a gap of its
own (no provisioner ran), while the bus is away, and for booting machines while no registrar hears them. So an outage fails
nobody.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from paddock.bus import lifecycle, logs
from paddock.contracts import errors, ids, phases
from paddock.provisioner import catalogue, stages
from paddock.store import engine, leases, machines, process, sandboxes, stage_runs

log = logs.get(__name__)

LEASE = "limits"
LEASE_MS = 6_000
PERIOD_S = 2.0
GAP_MS = 5_000
"""Longer between two looks than one takes over from another: nobody was there."""
REGISTRAR_LEASE = "registrar-alive"
REGISTRAR_SILENT_MS = 15_000
"""Three missed signs of life."""
_AT_ONCE: Final = 100
_BOOTING: Final = frozenset({phases.Phase.BOOTING})


class Limits:
    """The elected keeper of limits, and of what else one process of the fleet has to look after."""

    def __init__(
        self,
        context: process.Context,
        providers: catalogue.Catalogue,
        *,
        wake: Callable[[ids.MachineId], None],
    ) -> None:
        """Make it; `wake` is told of a machine that needs its provider."""
        self._context, self._store, self._providers, self._wake = context, context.store, providers, wake
        self._is_registrar_away = False

    async def run(self, stop: asyncio.Event) -> None:
        """Look every two seconds until `stop`, when elected."""
        async for _ in lifecycle.every(PERIOD_S, stop):
            await self.look()
        async with self._store.write() as tx:
            await leases.release(tx, LEASE, self._context.owner)

    async def look(self) -> None:
        """One round: when elected, give back lost time, fail what is late, queue the end of what was kept."""
        try:
            if await self._beat():
                await self.fail_overdue()
                await self.destroy_kept()
        except errors.StoreDown as fault:
            log.warning("limits_not_kept", detail=fault.detail)

    async def _beat(self) -> bool:
        """Be the one who keeps limits, and give back the time that nobody could use. Returns whether we are."""
        async with self._store.write(actor=self._context.owner) as tx:
            held = await leases.acquire(tx, LEASE, self._context.owner, lease_ms=LEASE_MS)
            if held is None:
                return False
            registrar_ms = await self._registrar_gap_ms(tx, held.gap_ms)
            if held.gap_ms > GAP_MS or not self._context.rpc.is_connected:
                await machines.shift_limits(tx, held.gap_ms)
            elif registrar_ms:
                await machines.shift_limits(tx, registrar_ms, among=_BOOTING)
        return True

    async def _registrar_gap_ms(self, tx: engine.Tx, since_look_ms: int) -> int:
        """How much time to give back to booting machines for want of a registrar."""
        beat_at = await leases.last_beat(tx, REGISTRAR_LEASE)
        was_away, self._is_registrar_away = (
            self._is_registrar_away,
            beat_at is None or tx.now_ms - beat_at > REGISTRAR_SILENT_MS,
        )
        if not self._is_registrar_away:
            return 0
        if was_away or beat_at is None:
            return since_look_ms
        log.warning("registrar_silent", since_s=(tx.now_ms - beat_at) // 1000, do="start a registrar")
        return tx.now_ms - beat_at

    async def fail_overdue(self) -> None:
        """Fail the machines past the limit of their phase, with the reason."""
        async with self._store.read() as tx:
            late = await machines.overdue(tx, limit=_AT_ONCE)
        for machine in late:
            tail = await self._log_tail(machine)
            async with self._store.write(actor=self._context.owner) as tx:
                now = await machines.lock(tx, machine.id)
                if now is None or now.phase is not machine.phase or (now.limit_at or tx.now_ms) >= tx.now_ms:
                    continue
                reason = await _reason(tx, now, tail)
                if await stages.fail(tx, now, reason):
                    log.info("limit_exceeded", machine_id=now.id, phase=now.phase)

    async def destroy_kept(self) -> None:
        """Queue the end of failed machines' sandboxes that were kept for a look."""
        async with self._store.read() as tx:
            kept = await sandboxes.to_destroy(tx, limit=_AT_ONCE)
        for machine_id in {row.machine_id for row in kept}:
            async with self._store.write(actor=self._context.owner) as tx:
                now = await machines.lock(tx, machine_id)
                if now is not None and now.phase is phases.Phase.FAILED:
                    await stage_runs.queue(tx, now, phases.Stage.DESTROY)
            self._wake(machine_id)

    async def _log_tail(self, machine: machines.Machine) -> str:
        """The last lines of its boot log when its sandbox is on this host; another's are a call away for who asks."""
        source = self._providers.find(machine.provider)
        if source is None:
            return ""
        try:
            return (await source.log(machine.sandbox_id, tail_bytes=4096)).text
        except errors.NotFound:
            return ""


async def _reason(tx: engine.Tx, machine: machines.Machine, log_tail: str) -> machines.Reason:
    lane = phases.Lane.PROVIDER if machine.phase in stages.AT_WORK else phases.Lane.GUEST
    run = await stage_runs.unfinished(tx, machine.id, lane)
    took_s = (tx.now_ms - machine.phase_at) // 1000
    last = f"; last: {run.error.message}" if run is not None and run.error is not None else ""
    fault = errors.LimitExceeded(
        f"cannot finish {_DOING.get(machine.phase, machine.phase)}: it took longer than {took_s} s{last}",
        data={"phase": machine.phase, "tookS": took_s},
    )
    stage = run.stage if run is not None else machine.phase
    return machines.reason_of(stage, fault, log_tail=log_tail)


_DOING: Final = {
    phases.Phase.CREATED: "waiting for a provisioner",
    phases.Phase.PROVISIONING: "provisioning",
    phases.Phase.STARTING: "starting",
    phases.Phase.BOOTING: "booting: its daemon did not say ready",
    phases.Phase.SETTING_UP: "the setup",
    phases.Phase.PROBING: "probing",
}
