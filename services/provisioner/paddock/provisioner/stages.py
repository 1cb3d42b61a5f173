"""The provider lane: `provision` gets a machine its sandbox, `destroy` takes it away again.

A sandbox lives on one host and so does its machine's HOME: whoever claims work of a machine that lives elsewhere hands it
on. Each step may be done twice; the row about a sandbox is there before the provider is called.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from paddock.bus import clock, logs
from paddock.contracts import errors, events, ids, phases, rpc, services, subjects
from paddock.provisioner import catalogue
from paddock.provisioner.providers import provider
from paddock.store import engine, machines, runner, sandboxes, stage_runs

log = logs.get(__name__)

ISSUE_S = 10.0
"""For the registrar to issue a credential."""
AWAY_RETRY_S = 1.0
"""Between two tries while there is no registrar, or no bus: nothing tells us when one is back."""
AWAY = (
    errors.NoAnswer, errors.BusDown, errors.ShuttingDown, errors.TooManyInFlight, errors.LateCall, errors.DeadlineExceeded,
)  # fmt: skip
"""The registrar refused nothing, so it is no failure of the machine's, which waits; its phase's limit ends that."""
AT_WORK = frozenset({phases.Phase.CREATED, phases.Phase.PROVISIONING, phases.Phase.STARTING})
TO_DESTROY = frozenset({phases.Phase.DELETING, phases.Phase.FAILED})

ParamsT = TypeVar("ParamsT", bound=msgspec.Struct)
ResultT = TypeVar("ResultT", bound=msgspec.Struct)


class Calls(Protocol):
    """What we need of `paddock.bus.caller.Caller`."""

    async def call(
        self, subject: str, method: rpc.Method[ParamsT, ResultT], params: ParamsT, *, timeout_s: float
    ) -> ResultT:
        """Ask one peer and wait for its answer."""
        ...


class _Stage:
    """What both stages share: the store, the providers of this host, and whose machine it is."""

    def __init__(self, store: engine.Store, providers: catalogue.Catalogue, *, node: str, actor: str) -> None:
        self._store, self._providers, self._node, self._actor = store, providers, node, actor

    async def _lives_elsewhere(self, tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run) -> bool:
        """Whether another host has the machine's HOME; from here on, then, only that one claims the run."""
        home = _home_node(await sandboxes.of_machine(tx, machine.id))
        if home is None or home == self._node:
            return False
        await stage_runs.pin(tx, run, home)
        return True


class ProvisionStage(_Stage):
    """`created` → `provisioning` → `booting`, or `setting_up` when the daemon was ready before we knew its sandbox."""

    def __init__(
        self,
        store: engine.Store,
        providers: catalogue.Catalogue,
        calls: Calls,
        *,
        node: str,
        actor: str,
        bus_url: str,
        wall: clock.Clock,
        made: Callable[[ids.SandboxId, provider.Provider], None],
    ) -> None:
        """Make it; `made` is told of each sandbox that there is now, `wall` says when the provider was called."""
        super().__init__(store, providers, node=node, actor=actor)
        self._calls, self._bus_url, self._clock, self._tell = calls, bus_url, wall, made

    async def claimed(
        self, tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run
    ) -> machines.Machine | None:
        if machine.phase not in AT_WORK or machine.generation != run.generation:
            return None
        is_first = machine.generation == 1 and machine.phase is phases.Phase.CREATED
        if not is_first and await self._lives_elsewhere(tx, machine, run):
            return machine
        # Before the provider is called, so that no sandbox is ever forgotten.
        await sandboxes.begin(tx, machine.id, run.generation, node=self._node)
        if machine.phase is not phases.Phase.CREATED:
            return machine
        return await machines.move(tx, machine.id, phases.CLAIM, data={"node": self._node})

    async def work(self, machine: machines.Machine, run: stage_runs.Run) -> runner.Outcome:
        with logs.bound(machine_id=machine.id, stage_run_id=run.id):
            rows: Sequence[sandboxes.Sandbox] = []
            if machine.generation > 1 or run.claims > 1:  # else there is nothing to find
                async with self._store.read() as tx:
                    rows = await sandboxes.of_machine(tx, machine.id)
            if _home_node(rows) not in {None, self._node}:
                return runner.Again(0.0)
            try:
                source = self._providers.offered(machine.provider)
            except errors.UnknownProvider as fault:
                return runner.Failed(fault)
            if (reason := await source.available()) is not None:
                return runner.Failed(errors.ProviderFailed(f"cannot make a sandbox: {reason}"))
            await self._remove_older(machine, rows, source)
            return await self._create(machine, run, source)

    async def _remove_older(
        self, machine: machines.Machine, rows: Sequence[sandboxes.Sandbox], source: provider.Provider
    ) -> None:
        """Generation N + 1 is made only after N is gone."""
        older = [row for row in rows if row.generation < machine.generation and row.gone_at is None]
        for row in older:
            await source.delete(row.id)
        if older:
            async with self._store.write(actor=self._actor) as tx:
                for row in older:
                    await sandboxes.gone(tx, machine.id, row.generation, reason=row.end_reason or "replaced")
                await sandboxes.revoke(tx, machine.id, up_to_generation=machine.generation - 1)

    async def _create(
        self, machine: machines.Machine, run: stage_runs.Run, source: provider.Provider
    ) -> runner.Outcome:
        wanted = services.IssueParams(machine_id=machine.id, generation=machine.generation)
        try:
            issued = await self._calls.call(
                subjects.REGISTRAR_CALL, services.ISSUE_CREDENTIAL, wanted, timeout_s=ISSUE_S
            )
        except AWAY as fault:
            return runner.Again(AWAY_RETRY_S, fault, is_failure=False)
        async with self._store.read() as tx:
            if not await stage_runs.still_held(tx, run):  # this process stood still, and another goes on
                return runner.Again(0.0)
        called_at = self._clock.now_ms()
        made = await source.create(
            provider.SandboxSpec(
                machine_id=machine.id,
                generation=machine.generation,
                bus_url=self._bus_url,
                node=self._node,
                credentials=issued.credentials,
            )
        )
        log.info(
            "sandbox_created", sandbox=machine.sandbox_id, external_id=made.external_id, is_new=made.is_new
        )
        self._tell(machine.sandbox_id, source)

        async def apply(tx: engine.Tx, now: machines.Machine) -> None:
            await self._made(tx, now, run, made.external_id, called_at)

        return runner.Finished(apply)

    async def _made(
        self, tx: engine.Tx, now: machines.Machine, run: stage_runs.Run, external_id: str, called_at: int
    ) -> None:
        sandbox = await sandboxes.made(tx, now.id, run.generation, external_id, called_at_ms=called_at)
        if now.generation != run.generation or now.phase not in phases.BOOT.sources:
            return  # asked to be deleted in the meantime; what is needed now is planned by the runner after this
        facts = {"node": self._node, "externalId": external_id}
        if sandbox is not None and sandbox.ready_boot is not None:
            now, _ = await machines.announce(tx, now, events.MACHINE_PROVISIONED, facts)
            told = {"boot": sandbox.ready_boot, "daemonVersion": sandbox.daemon_version}
            await machines.move(tx, now.id, phases.SET_UP, data=told, boot=sandbox.ready_boot)
        else:
            await machines.move(tx, now.id, phases.BOOT, data=facts)

    async def gave_up(
        self, tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run, fault: errors.Fault
    ) -> None:
        if machine.generation == run.generation and machine.phase in AT_WORK:
            await fail(tx, machine, machines.reason_of(run.stage, fault))


class DestroyStage(_Stage):
    """`deleting` → `deleted`; and the sandbox of a failed machine, whose HOME and row stay."""

    async def claimed(
        self, tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run
    ) -> machines.Machine | None:
        if machine.phase not in TO_DESTROY:
            return None
        await self._lives_elsewhere(tx, machine, run)
        return machine

    async def work(self, machine: machines.Machine, run: stage_runs.Run) -> runner.Outcome:
        with logs.bound(machine_id=machine.id, stage_run_id=run.id):
            async with self._store.read() as tx:
                rows = await sandboxes.of_machine(tx, machine.id)
            if _home_node(rows) not in {None, self._node}:
                return runner.Again(0.0)
            source = self._providers.find(machine.provider)
            if source is not None:
                await self._remove(machine, rows, source)

        async def apply(tx: engine.Tx, now: machines.Machine) -> None:
            for row in rows:
                if row.gone_at is None:
                    await sandboxes.gone(tx, now.id, row.generation, reason=row.end_reason or "destroyed")
            await sandboxes.revoke(tx, now.id, up_to_generation=machine.generation)
            if machine.phase is phases.Phase.DELETING:
                await machines.move(tx, now.id, phases.DELETED)

        return runner.Finished(apply)

    @staticmethod
    async def _remove(
        machine: machines.Machine, rows: Sequence[sandboxes.Sandbox], source: provider.Provider
    ) -> None:
        for row in rows:
            await source.delete(row.id)
        if machine.phase is phases.Phase.DELETING:
            await source.delete_home(machine.id)
        log.info("sandbox_destroyed", sandbox=machine.sandbox_id)

    async def gave_up(
        self, tx: engine.Tx, machine: machines.Machine, run: stage_runs.Run, fault: errors.Fault
    ) -> None:
        """Never: destroying is retried for ever."""


async def fail(tx: engine.Tx, machine: machines.Machine, reason: machines.Reason) -> bool:
    """Fail a machine, and keep its sandbox an hour for a look. Returns whether it was still ours to fail."""
    if await machines.move(tx, machine.id, phases.FAIL, reason=reason) is None:
        return False
    for row in await sandboxes.of_machine(tx, machine.id):
        if row.gone_at is None:
            delay_ms = int(phases.FAILED_KEPT_S * 1000)
            await sandboxes.destroy_after(tx, machine.id, row.generation, delay_ms=delay_ms)
    return True


def _home_node(rows: Sequence[sandboxes.Sandbox]) -> str | None:
    """The host that has the machine's HOME, if any has it yet."""
    return next((row.node for row in reversed(rows) if row.node is not None), None)
