"""The two stages of the guest lane that push: `setup` (everything) and `env` (the environment file alone).

A machine that is away is not a failure of its setup: the run is given back under the same name and goes on where it was.
An active machine never fails here; what goes wrong is its health.
"""

import functools
from typing import Any

from paddock.bus import clock, logs
from paddock.contracts import errors, events, phases
from paddock.setup_pusher import env, guest, plan, steps
from paddock.store import engine, machines, runner, sandboxes, stage_runs

log = logs.get(__name__)

AWAY_RETRY_S = 1.0
"""Between two tries to reach a machine that is away, beyond the patience each try has."""
HOPELESS = (errors.PathInUse, errors.InvalidParams, errors.BadPath)
"""Trying again changes nothing until somebody changes the project or the machine."""


class Guests:
    """Makes the view of one machine for one run."""

    def __init__(
        self, calls: guest.Calls, wall: clock.Clock, *, patience_s: float = guest.PATIENCE_S
    ) -> None:
        self._calls, self._clock, self._patience_s = calls, wall, patience_s

    def of(self, machine: machines.Machine, run: stage_runs.Run) -> guest.Guest:
        return guest.Guest(
            self._calls, machine.sandbox_id, run=run.run, wall=self._clock, patience_s=self._patience_s
        )


class SetupStage:
    """`setting_up` → `probing`; in `active`, the check after a daemon's restart."""

    def __init__(self, store: engine.Store, planner: plan.Planner, guests: Guests, *, actor: str) -> None:
        self._store, self._planner, self._guests, self._actor = store, planner, guests, actor

    async def claimed(
        self, tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run
    ) -> machines.Machine | None:
        fits = machine.phase in {phases.Phase.SETTING_UP, phases.Phase.ACTIVE}
        return machine if fits and machine.generation == run.generation else None

    async def work(self, machine: machines.Machine, run: stage_runs.Run) -> runner.Outcome:
        with logs.bound(machine_id=machine.id, stage_run_id=run.id):
            wanted = await self._planner.setup(machine.id)
            try:
                tell = functools.partial(self._tell, machine, run)
                pushed = await steps.push(self._guests.of(machine, run), wanted.setup, tell)
            except guest.AWAY as fault:
                return _away(fault)
            except HOPELESS as fault:
                return runner.Failed(fault, log_tail=_tail_of(fault))
            facts: dict[str, Any] = {"steps": list(pushed.steps), "wroteEnv": pushed.wrote_env}

        async def apply(tx: engine.Tx, now: machines.Machine) -> None:
            await machines.set_env_applied(tx, now.id, wanted.env_version)
            if now.phase is phases.Phase.SETTING_UP:
                await machines.move(tx, now.id, phases.PROBE, data=facts)
            elif now.phase is phases.Phase.ACTIVE:
                _, event = await machines.announce(tx, now, events.MACHINE_SETUP_PUSHED, facts)
                await _look_next(tx, now, wanted.boot, caused_by=event)

        return runner.Finished(apply)

    async def _tell(
        self, machine: machines.Machine, run: stage_runs.Run, event_type: str, facts: dict[str, Any]
    ) -> None:
        """Let people follow; only for as long as the work is ours."""
        async with self._store.write(actor=self._actor, caused_by=run.caused_by) as tx:
            now = await machines.lock(tx, machine.id)
            if now is not None and await stage_runs.still_held(tx, run):
                await machines.announce(tx, now, event_type, facts)

    async def gave_up(
        self, tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run, fault: errors.Fault
    ) -> None:
        await _give_up(tx, machine, run, fault)


class EnvStage:
    """Work as long as the applied environment is not the desired one, in `probing` and in `active`."""

    def __init__(self, store: engine.Store, planner: plan.Planner, guests: Guests) -> None:
        self._store, self._planner, self._guests = store, planner, guests

    async def claimed(
        self, tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run
    ) -> machines.Machine | None:
        fits = machine.phase in {phases.Phase.PROBING, phases.Phase.ACTIVE}
        is_wanted = machine.generation == run.generation and not machine.is_env_applied
        return machine if fits and is_wanted else None

    async def work(self, machine: machines.Machine, run: stage_runs.Run) -> runner.Outcome:
        with logs.bound(machine_id=machine.id, stage_run_id=run.id):
            wanted = await self._planner.environment(machine.id)
            try:
                wrote = await env.apply(self._guests.of(machine, run), wanted.setup.environment)
            except guest.AWAY as fault:
                return _away(fault)
            except errors.Fault as fault:
                await self._degrade(machine, fault)
                raise

        async def apply(tx: engine.Tx, now: machines.Machine) -> None:
            await machines.set_env_applied(tx, now.id, wanted.env_version)
            facts = {"envApplied": wanted.env_version, "wroteEnv": wrote}
            _, event = await machines.announce(tx, now, events.MACHINE_ENV_PUSHED, facts)
            # A newer version, and the probe of one on its way to active, the runner queues after this.
            if now.phase is phases.Phase.ACTIVE:
                await _look_next(tx, now, wanted.boot, caused_by=event)

        return runner.Finished(apply)

    async def _degrade(self, machine: machines.Machine, fault: errors.Fault) -> None:
        if machine.phase is phases.Phase.ACTIVE:
            async with self._store.write(actor="setup_pusher") as tx:
                await machines.set_health(tx, machine.id, phases.Health.DEGRADED, f"env: {fault.message}")

    async def gave_up(
        self, tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run, fault: errors.Fault
    ) -> None:
        await _give_up(tx, machine, run, fault)


async def _look_next(tx: engine.Tx, machine: machines.Machine, boot: str, *, caused_by: str) -> None:
    """Queue the probe that follows in `active`, or the setup again when the daemon was restarted meanwhile."""
    # The lane was ours, so the registrar could not queue that setup when it heard of the new boot.
    boot_now = await plan.boot_of(tx, machine)
    stage = phases.Stage.PROBE if boot_now == boot else phases.Stage.SETUP
    await stage_runs.queue(tx, machine, stage, caused_by=caused_by, boot=boot_now)


async def _give_up(
    tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run, fault: errors.Fault
) -> None:
    if machine.phase is phases.Phase.ACTIVE:
        await machines.set_health(tx, machine.id, phases.Health.DEGRADED, f"{run.stage}: {fault.message}")
        return
    reason = machines.reason_of(run.stage, fault, log_tail=_tail_of(fault))
    if await machines.move(tx, machine.id, phases.FAIL, reason=reason) is not None:
        kept_ms = int(phases.FAILED_KEPT_S * 1000)
        await sandboxes.destroy_after(tx, machine.id, machine.generation, delay_ms=kept_ms)


def _away(fault: errors.Fault) -> runner.Again:
    # No known failure, so the next claim asks under the same names and finds what goes on.
    log.warning("machine_away", kind=fault.kind, again_in_s=AWAY_RETRY_S)
    return runner.Again(AWAY_RETRY_S, fault, is_failure=False)


def _tail_of(fault: errors.Fault) -> str:
    return str(fault.data.get("stderrTail", ""))
