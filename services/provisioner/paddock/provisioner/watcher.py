"""Looks after the sandboxes of this host: one that is gone is made anew, one that nobody knows is removed.

A sandbox's end is known the moment its process dies, and at the latest by a sweep that starts watching whatever is not
watched. Gone is only what was looked for here and not found running; an error or a time-out says nothing.
"""

import asyncio
from collections.abc import Callable

from paddock.bus import lifecycle, logs
from paddock.contracts import errors, ids, phases
from paddock.provisioner import catalogue, stages
from paddock.provisioner.providers import provider
from paddock.store import engine, machines, process, sandboxes, stage_runs

log = logs.get(__name__)

SWEEP_S = 2.0
ORPHANS_EVERY_S = 30.0
WATCHED = phases.RECREATE.sources - {phases.Phase.PROVISIONING}
"""In `provisioning` the stage itself is about to look."""


class Watcher:
    """The keeper of one host's sandboxes.

    Args:
        orphan_s: The age at which a sandbox nobody knows is removed.
        wake: Told of a machine that needs its provider again, so that it need not wait for the event.
    """

    def __init__(
        self,
        context: process.Context,
        providers: catalogue.Catalogue,
        *,
        orphan_s: float,
        wake: Callable[[ids.MachineId], None],
    ) -> None:
        self._context, self._store, self._node = context, context.store, context.node
        self._providers, self._orphan_s, self._wake = providers, orphan_s, wake
        self._tasks: asyncio.TaskGroup | None = None
        self._watches: dict[ids.SandboxId, asyncio.Task[None]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop`."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            async for _ in lifecycle.every(SWEEP_S, stop):
                for sandbox, source in await self._unwatched():
                    self.watch(sandbox, source)
            self._tasks = None
            for watch in list(self._watches.values()):
                watch.cancel()

    def watch(self, sandbox: ids.SandboxId, source: provider.Provider) -> None:
        """Notice the end of this sandbox at once; the sweep would begin to watch it within two seconds."""
        if self._tasks is not None and sandbox not in self._watches:
            watch = self._tasks.create_task(self._watch(sandbox, source), name=f"watch-{sandbox}")
            self._watches[sandbox] = watch
            watch.add_done_callback(lambda _: self._watches.pop(sandbox, None))

    async def sweep_orphans(self, stop: asyncio.Event) -> None:
        """Remove what nobody knows, until `stop`."""
        async for _ in lifecycle.every(ORPHANS_EVERY_S, stop):
            try:
                await self.remove_orphans()
                for source in self._providers:
                    await source.tidy()
            except errors.Fault as fault:
                log.warning("orphans_not_removed", error=fault.message, detail=fault.detail)

    async def _unwatched(self) -> list[tuple[ids.SandboxId, provider.Provider]]:
        found = []
        try:
            async with self._store.read() as tx:
                for row in await sandboxes.on_node(tx, self._node):
                    if row.id in self._watches:
                        continue
                    machine = await machines.get(tx, row.machine_id)
                    source = self._providers.find(machine.provider)
                    if source is not None and _is_current(machine, row):
                        found.append((row.id, source))
        except errors.StoreDown as fault:
            log.warning("sandboxes_not_watched", detail=fault.detail)
        return found

    async def _watch(self, sandbox: ids.SandboxId, source: provider.Provider) -> None:
        try:
            await source.ended(sandbox)
            await self.check(sandbox, source)
        except errors.Fault as fault:
            log.warning("watch_failed", sandbox=sandbox, error=fault.message, detail=fault.detail)

    async def check(self, sandbox: ids.SandboxId, source: provider.Provider) -> None:
        """Look at one sandbox; when it is gone its machine is made anew, or fails when that happens too often."""
        seen = await source.inspect(sandbox)
        if seen.state == "running":
            return
        machine_id, generation = ids.split_sandbox(sandbox)
        async with self._store.write(actor=self._context.owner) as tx:
            machine = await machines.lock(tx, machine_id)
            row = await sandboxes.get(tx, machine_id, generation)
            if machine is None or row is None or not _is_current(machine, row):
                return
            await _make_anew(tx, machine, seen)
        log.warning("sandbox_gone", machine_id=machine_id, sandbox=sandbox, reason=seen.reason)
        self._wake(machine_id)

    async def remove_orphans(self) -> None:
        """Delete sandboxes that belong to nothing: no machine, a deleted one, or an older generation of one."""
        for source in self._providers:
            for found in await source.sandboxes():
                if found.created_at_ms > self._context.clock.now_ms() - int(self._orphan_s * 1000):
                    continue
                async with self._store.read() as tx:
                    orphan_of = await _orphan_of(tx, found.sandbox_id)
                if orphan_of is not None:
                    await self._remove(source, found.sandbox_id, orphan_of)

    async def _remove(self, source: provider.Provider, sandbox: ids.SandboxId, why: str) -> None:
        log.warning("orphan_removed", sandbox=sandbox, why=why)
        await source.delete(sandbox)
        machine, generation = ids.split_sandbox(sandbox)
        async with self._store.write(actor=self._context.owner) as tx:
            await sandboxes.gone(tx, machine, generation, reason=f"orphan: {why}")


def _is_current(machine: machines.Machine, row: sandboxes.Sandbox) -> bool:
    # Without an external id the provider lane is not done with it, or has yet to look itself.
    is_known = row.external_id is not None and row.gone_at is None
    return is_known and machine.phase in WATCHED and machine.generation == row.generation


async def _make_anew(tx: engine.Tx, machine: machines.Machine, seen: provider.Inspection) -> None:
    kind = errors.SandboxVanished if seen.state == "vanished" else errors.SandboxExited
    message = f"the sandbox {machine.sandbox_id} is gone: {seen.reason}"
    within_ms = int(phases.RECREATIONS_WITHIN_S * 1000)
    if await machines.recreations(tx, machine.id, within_ms=within_ms) < phases.MAX_RECREATIONS:
        reason = machines.reason_of("sandbox", kind(message), log_tail=seen.log_tail)
        await machines.move(tx, machine.id, phases.RECREATE, reason=reason, next_generation=True)
        return
    minutes = phases.RECREATIONS_WITHIN_S / 60
    message = f"{message}; made anew {phases.MAX_RECREATIONS} times within {minutes:g} minutes already"
    await stages.fail(tx, machine, machines.reason_of("sandbox", kind(message), log_tail=seen.log_tail))


async def _orphan_of(tx: engine.Tx, sandbox: ids.SandboxId) -> str | None:
    """Why nobody needs this sandbox, or None when somebody may."""
    machine_id, generation = ids.split_sandbox(sandbox)
    try:
        machine = await machines.get(tx, machine_id)
    except errors.NotFound:
        return "there is no such machine"
    run = await stage_runs.unfinished(tx, machine_id, phases.Lane.PROVIDER)
    if run is not None:
        return None  # being worked on: whoever does so removes it, or needs it
    if machine.phase is phases.Phase.DELETED:
        return "its machine is deleted"
    # A newer generation than we know: a restored backup must not end what runs.
    return "its machine has a newer sandbox" if generation < machine.generation else None
