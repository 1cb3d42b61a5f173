"""The stage runner: claim a run, work on it with no transaction open, finish it if the lease is still held.

An event and a sweep every two seconds do the same thing, so losing every event costs seconds. A crash is taken over when
the lease has passed and is not an attempt; a known failure is. Losing a lease is normal and silent: the work is cancelled
and whoever holds it now goes on.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeAlias

from paddock.bus import lifecycle, logs
from paddock.contracts import errors, events, ids, phases
from paddock.store import barriers, engine, machines, stage_runs

log = logs.get(__name__)

SWEEP_S = 2.0
RENEWALS_PER_LEASE = 3
STORE_RETRY_S = 0.5
"""Between two tries to write an outcome while the database is away; the lease decides how long that is worth it."""
BACKOFF_S = (1.0, 3.0, 10.0, 30.0, 60.0)
"""Before the next attempt after a known failure, by attempts so far."""

Apply: TypeAlias = Callable[[engine.Tx, machines.Machine], Awaitable[None]]


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """The work is done; `apply` records it (facts and moves) in the finishing transaction, the machine locked."""

    apply: Apply


@dataclasses.dataclass(frozen=True, slots=True)
class Again:
    """Not yet: due again after `after_s`, for the reason `fault`, which people see.

    With a fault it was a known failure and counts as an attempt, unless `is_failure` is False: what the work needs is
    away, and it goes on under the same call ids when that is back.
    """

    after_s: float
    fault: errors.Fault | None = None
    is_failure: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """It will never work: the machine fails with this reason."""

    fault: errors.Fault
    log_tail: str = ""


Outcome: TypeAlias = Finished | Again | Failed


class Handler(Protocol):
    """The work of one stage."""

    async def claimed(
        self, tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run
    ) -> machines.Machine | None:
        """In the claiming transaction, the machine locked: the move that goes with it.

        Returns:
            The machine to work on, or None when the run no longer fits the machine; it is then cancelled.
        """
        ...

    async def work(self, machine: machines.Machine, run: stage_runs.Run) -> Outcome:
        """Do it, with no transaction open. A `Fault` raised is a known failure of the attempt.

        Cancellation: comes when the lease is lost or the process stops; leave what was begun, another takes over.
        """
        ...

    async def gave_up(
        self, tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run, fault: errors.Fault
    ) -> None:
        """In the finishing transaction, after the last attempt failed: what becomes of the machine."""
        ...


@dataclasses.dataclass(slots=True)
class _InFlight:
    run: stage_runs.Run
    check: asyncio.Event


class Runner:
    """Works on the runs of some stages for one process. Any number of processes may run one each.

    Args:
        owner: Names this process in leases and history.
        node: This host; runs pinned to another are passed over.
        stages: The handler of each stage done here.
        concurrency: Runs worked on at once.
        is_pinning: What is claimed here stays with this host.
        barrier: Where a fault test holds this process; off by default.
    """

    def __init__(
        self,
        store: engine.Store,
        *,
        owner: str,
        node: str,
        stages: Mapping[phases.Stage, Handler],
        concurrency: int = 200,
        is_pinning: bool = False,
        lease_ms: int = stage_runs.LEASE_MS,
        sweep_s: float = SWEEP_S,
        barrier: barriers.Barrier = barriers.NONE,
    ) -> None:
        self._store = store
        self._owner, self._node, self._stages = owner, node, dict(stages)
        self._names = frozenset(stages)
        self._is_pinning = is_pinning
        self._lease_ms, self._sweep_s, self._barrier = lease_ms, sweep_s, barrier
        self._slots = asyncio.Semaphore(concurrency)
        self._tasks: asyncio.TaskGroup | None = None
        self._stop: asyncio.Event | None = None
        self._busy: dict[tuple[ids.MachineId, phases.Lane], _InFlight] = {}
        self._waking: set[ids.MachineId] = set()
        self._again: set[ids.MachineId] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until `stop`; then let go of what is in flight (another process takes over, or this one after a start)."""
        self._stop = stop
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            async for _ in lifecycle.every(self._sweep_s, stop):
                await self._sweep()
            self._tasks = None  # nothing new from here on
            for flight in self._busy.values():
                flight.check.set()

    async def on_event(self, event: events.Event, _delivery: object = None) -> None:
        """An event of interest arrived: look at its machine now. Returns before the work is done."""
        if event.machineid:
            self.wake(ids.MachineId(event.machineid))
        await self._barrier.reach("before-ack")

    def wake(self, machine: ids.MachineId) -> None:
        """Something about this machine changed: claim what is due, and look whether leases held here still are."""
        for (busy, _lane), flight in self._busy.items():
            if busy == machine:
                flight.check.set()
        if self._tasks is None:
            return
        if machine in self._waking:
            self._again.add(machine)
            return
        self._waking.add(machine)
        self._tasks.create_task(self._woken(machine), name=f"wake-{machine}")

    async def _woken(self, machine: ids.MachineId) -> None:
        try:
            while True:
                self._again.discard(machine)
                async with self._slots:
                    while await self._claim_and_work(machine):
                        pass
                if machine not in self._again:
                    return
        except errors.StoreDown as fault:
            log.warning("store_away", machine_id=machine, detail=fault.detail)
        finally:
            self._waking.discard(machine)

    async def _sweep(self) -> None:
        try:
            async with self._store.read() as tx:
                found = await stage_runs.due(tx, self._names, node=self._node, limit=500)
        except errors.StoreDown as fault:
            log.warning("sweep_failed", detail=fault.detail)
            return
        for machine in found:
            self.wake(machine)
        for flight in self._busy.values():
            flight.check.set()

    async def _claim_and_work(self, machine: ids.MachineId) -> bool:
        """Claim one run and bring it to its end. Returns whether there may be more."""
        if self._is_stopping:
            return False
        await self._barrier.reach("before-lease")
        claimed = await self._claim(machine)
        if claimed is None:
            return False
        held, run = claimed
        key = (machine, run.lane)
        self._busy[key] = flight = _InFlight(run, asyncio.Event())
        try:
            outcome = await self._work(held, flight)
        finally:
            del self._busy[key]
        if outcome is None:
            return True
        await self._barrier.reach(f"{run.stage}:after-effect")
        await self._finish(flight.run, outcome)
        await self._barrier.reach(f"{run.stage}:after-commit")
        self._wake_later(machine, outcome)
        return True

    async def _claim(self, machine: ids.MachineId) -> tuple[machines.Machine, stage_runs.Run] | None:
        async with self._store.write(actor=self._owner) as tx:
            row = await machines.lock(tx, machine)
            if row is None:
                return None
            run = await stage_runs.claim(
                tx,
                machine,
                self._names,
                owner=self._owner,
                node=self._node,
                is_pinning=self._is_pinning,
                lease_ms=self._lease_ms,
            )
            if run is None:
                return None
            tx.caused_by = run.caused_by
            fits = await self._stages[run.stage].claimed(tx, row, run)
            if fits is None:
                await stage_runs.finish(tx, run, "cancelled")
                await stage_runs.plan(tx, row, caused_by=run.caused_by)
                return None
            return fits, run

    async def _work(self, machine: machines.Machine, flight: _InFlight) -> Outcome | None:
        """The outcome, or None when the lease was lost or the process stops."""
        outcome: Outcome | None = None
        try:
            async with asyncio.TaskGroup() as group:
                keeper = group.create_task(self._keep(flight), name=f"lease-{flight.run.id}")
                outcome = await self._attempt(machine, flight.run)
                keeper.cancel()
        except* _LeaseLostError:
            log.info("lease_lost", **_about(flight.run))
            outcome = None
        if self._is_stopping and outcome is None:
            await self._release(flight.run)
        return outcome

    async def _attempt(self, machine: machines.Machine, run: stage_runs.Run) -> Outcome:
        try:
            async with asyncio.timeout(self._attempt_s(run)):
                return await self._stages[run.stage].work(machine, run)
        except TimeoutError:
            limit_s = phases.ATTEMPT_LIMIT_S[run.stage]
            fault: errors.Fault = errors.LimitExceeded(
                f"cannot finish {run.stage}: one attempt took over {limit_s:g} s"
            )
        except errors.StoreDown as away:
            return Again(STORE_RETRY_S, away, is_failure=False)
        except errors.Fault as raised:
            fault = raised
        except Exception:
            log.exception("stage_crashed", **_about(run))
            fault = errors.Internal()
        return Again(self._backoff_s(run), fault)

    async def _release(self, run: stage_runs.Run) -> None:
        # Another process, or the next one here, need not wait for the lease to pass.
        try:
            async with self._store.write(actor=self._owner) as tx:
                await stage_runs.try_again(tx, run, after_ms=0, error=None, is_failure=False)
        except errors.StoreDown as fault:
            log.warning("release_failed", **_about(run), detail=fault.detail)

    def _attempt_s(self, run: stage_runs.Run) -> float:
        # Both are the database's clock, at the claim.
        claimed_at = run.lease_until - self._lease_ms
        return ((run.limit_at or claimed_at) - claimed_at) / 1000

    @staticmethod
    def _backoff_s(run: stage_runs.Run) -> float:
        return BACKOFF_S[min(run.attempt, len(BACKOFF_S) - 1)]

    @property
    def _is_stopping(self) -> bool:
        return self._stop is None or self._stop.is_set()

    async def _keep(self, flight: _InFlight) -> None:
        period_s = self._lease_ms / 1000 / RENEWALS_PER_LEASE
        good_until = asyncio.get_running_loop().time() + self._lease_ms / 1000
        while True:
            flight.check.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(period_s):
                    await flight.check.wait()
            if self._is_stopping:
                raise _LeaseLostError
            try:
                async with self._store.write() as tx:
                    is_held = await stage_runs.renew(tx, flight.run, lease_ms=self._lease_ms)
            except errors.StoreDown:
                is_held = asyncio.get_running_loop().time() < good_until
            else:
                good_until = asyncio.get_running_loop().time() + self._lease_ms / 1000
            if not is_held:
                raise _LeaseLostError

    async def _finish(self, run: stage_runs.Run, outcome: Outcome) -> None:
        """Write the outcome, if the lease is still held; while the database is away, for as long as it would be."""
        until = asyncio.get_running_loop().time() + self._lease_ms / 1000
        while True:
            try:
                await self._finish_once(run, outcome)
            except errors.StoreDown:
                if asyncio.get_running_loop().time() > until:
                    raise
                await asyncio.sleep(STORE_RETRY_S)  # no event tells that a database is back
            else:
                return

    async def _finish_once(self, run: stage_runs.Run, outcome: Outcome) -> None:
        async with self._store.write(actor=self._owner, caused_by=run.caused_by) as tx:
            machine = await machines.lock(tx, run.machine_id)
            if machine is None or not await stage_runs.still_held(tx, run):
                log.info("lease_lost", **_about(run))
                return
            handler = self._stages[run.stage]
            match outcome:
                case Finished(apply):
                    await stage_runs.finish(tx, run, "done")
                    await apply(tx, machine)
                    await self._look_again(tx, run)
                case Again():
                    await self._again_or_give_up(tx, machine, run, handler, outcome)
                case Failed(fault):
                    await stage_runs.finish(tx, run, "failed", _error(fault))
                    await handler.gave_up(tx, machine, run, fault)
                    await self._look_again(tx, run)
        log.info("stage_finished", **_about(run), outcome=type(outcome).__name__.lower())

    async def _again_or_give_up(
        self,
        tx: engine.Tx,
        machine: machines.Machine,
        run: stage_runs.Run,
        handler: Handler,
        again: Again,
    ) -> None:
        allowed, fault = phases.MAX_ATTEMPTS.get(run.stage), again.fault
        is_failure = fault is not None and again.is_failure
        if fault is not None and is_failure and allowed is not None and run.attempt + 1 >= allowed:
            await stage_runs.finish(tx, run, "failed", _error(fault))
            await handler.gave_up(tx, machine, run, fault)
            await self._look_again(tx, run)
            return
        await stage_runs.try_again(
            tx,
            run,
            after_ms=int(again.after_s * 1000),
            error=None if fault is None else _error(fault),
            is_failure=is_failure,
        )

    @staticmethod
    async def _look_again(tx: engine.Tx, run: stage_runs.Run) -> None:
        # What came up while this run held the lane (a deletion, a changed environment) was left for this moment.
        if run.machine_id in tx.planned:
            return
        machine = await machines.lock(tx, run.machine_id)
        if machine is not None:
            await stage_runs.plan(tx, machine, caused_by=run.caused_by)

    def _wake_later(self, machine: ids.MachineId, outcome: Outcome) -> None:
        if isinstance(outcome, Again) and outcome.after_s < self._sweep_s:
            asyncio.get_running_loop().call_later(outcome.after_s + 0.002, self.wake, machine)


class _LeaseLostError(Exception):
    """Somebody else holds the run now, or the process stops."""


def _error(fault: errors.Fault) -> stage_runs.Error:
    return stage_runs.Error(kind=fault.kind, message=fault.message, data=fault.data)


def _about(run: stage_runs.Run) -> dict[str, object]:
    return {"machine_id": run.machine_id, "stage": run.stage, "stage_run_id": run.id, "attempt": run.attempt}
