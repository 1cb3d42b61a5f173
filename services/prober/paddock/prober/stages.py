"""The stage `probe`: ask a machine until it answers well, then activate it in one transaction that looks again.

Never before the environment the machine holds is the one it should hold. In `active` the same work keeps the machine's
health true: a failure there degrades it and says why, a success makes it well.
"""

import asyncio
from collections.abc import Sequence

from paddock.bus import logs
from paddock.contracts import errors, events, phases
from paddock.prober import target
from paddock.prober.probes import exec as exec_probe
from paddock.prober.probes import rpc as rpc_probe
from paddock.store import engine, machines, projects, runner, sandboxes, stage_runs

log = logs.get(__name__)

FIRST_PAUSE_S, PAUSE_FACTOR, PAUSE_MAX_S = 0.1, 1.6, 5.0
ROUND_S = phases.ATTEMPT_LIMIT_S[phases.Stage.PROBE] - 2.0
"""All probes of one round; less than the attempt's limit, so that the reason is ours."""
PING_S = 5.0


def pause_s(failures: int) -> float:
    """How long to wait after so many failures before this one."""
    # The exponent is bounded first: a machine may stay degraded for months, and floats end.
    return min(PAUSE_MAX_S, FIRST_PAUSE_S * PAUSE_FACTOR ** min(failures, 20))


async def ask_all(machine: target.Target, probes: Sequence[projects.Probe]) -> None:
    """Every probe in order, the ping first.

    Raises:
        errors.ProbeFailed: One did not succeed, or all of them took longer than `ROUND_S`.
    """
    try:
        async with asyncio.timeout(ROUND_S):
            pings = [probe.timeout_s for probe in probes if probe.kind == "rpc"]
            await rpc_probe.ask(machine, timeout_s=min(pings, default=PING_S))
            for probe in probes:
                if probe.kind == "exec":
                    await exec_probe.ask(
                        machine, command=probe.command, cwd=probe.cwd, timeout_s=probe.timeout_s
                    )
    except TimeoutError:
        raise errors.ProbeFailed(f"the probes took longer than {ROUND_S:g} s together") from None


class ProbeStage:
    """`probing` → `active`; in `active`, the machine's health."""

    def __init__(self, store: engine.Store, calls: target.Calls, *, actor: str) -> None:
        self._store, self._calls, self._actor = store, calls, actor

    async def claimed(
        self, tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run
    ) -> machines.Machine | None:
        fits = machine.phase in {phases.Phase.PROBING, phases.Phase.ACTIVE}
        return machine if fits and machine.generation == run.generation and machine.is_env_applied else None

    async def work(self, machine: machines.Machine, run: stage_runs.Run) -> runner.Outcome:
        with logs.bound(machine_id=machine.id, stage_run_id=run.id):
            async with self._store.read() as tx:
                blueprint = (await projects.get(tx, machine.project_id)).blueprint
                boot = await _boot_of(tx, machine)
            try:
                await ask_all(target.Target(self._calls, machine.sandbox_id, boot), blueprint.probes)
            except errors.ProbeFailed as fault:
                await self._failed(machine, run, fault)
                return runner.Again(pause_s(run.attempt), fault)

        async def apply(tx: engine.Tx, now: machines.Machine) -> None:
            await self._succeeded(tx, now, boot)

        return runner.Finished(apply)

    async def _succeeded(self, tx: engine.Tx, now: machines.Machine, boot: str) -> None:
        # What was true when we asked may not be now; what is missing is queued here or, after this, by the runner.
        boot_now = await _boot_of(tx, now)
        if now.phase is phases.Phase.PROBING and now.is_env_applied and boot_now == boot:
            now, _ = await machines.announce(tx, now, events.MACHINE_PROBE_SUCCEEDED)
            await machines.move(tx, now.id, phases.ACTIVATE)
        elif now.phase is phases.Phase.ACTIVE and boot_now != boot:
            # The lane was ours, so the registrar could not queue the setup when it heard of the new boot.
            await stage_runs.queue(tx, now, phases.Stage.SETUP, caused_by=tx.caused_by, boot=boot_now)
        elif now.phase is phases.Phase.ACTIVE:
            await machines.set_health(tx, now.id, phases.Health.WELL)

    async def _failed(
        self, machine: machines.Machine, run: stage_runs.Run, fault: errors.ProbeFailed
    ) -> None:
        is_first = run.attempt == 0
        if machine.phase is phases.Phase.PROBING and not is_first:
            return  # told once; the run carries the last reason
        log.info("probe_failed", reason=fault.message, attempt=run.attempt)
        async with self._store.write(actor=self._actor, caused_by=run.caused_by) as tx:
            now = await machines.lock(tx, machine.id)
            if now is None or not await stage_runs.still_held(tx, run):
                return
            if is_first:
                await machines.announce(tx, now, events.MACHINE_PROBE_FAILED, {"reason": fault.message})
            if now.phase is phases.Phase.ACTIVE:
                await machines.set_health(tx, now.id, phases.Health.DEGRADED, fault.message)

    async def gave_up(
        self, tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run, fault: errors.Fault
    ) -> None:
        # Probes are tried until the phase's limit, or for ever: the runner never gives one up.
        await machines.set_health(tx, machine.id, phases.Health.DEGRADED, fault.message)


async def _boot_of(tx: engine.Tx, machine: machines.Machine) -> str:
    sandbox = await sandboxes.get(tx, machine.id, machine.generation)
    return (sandbox.ready_boot if sandbox is not None else None) or ""
