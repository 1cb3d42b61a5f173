"""What daemons report, and the answer that decides what they do next.

`ok`: it is recorded, stop repeating. `wait`: a machine or generation this store does not know yet, which after a restored
backup must not stop the fleet. `stop`: this sandbox is over.
"""

from paddock.bus import logs, responder
from paddock.contracts import daemon, events, ids, phases
from paddock.store import engine, machines, process, sandboxes, stage_runs

log = logs.get(__name__)

_ON_ITS_WAY = phases.SET_UP.sources
_IN_SETUP = phases.SET_UP_AGAIN.sources


class Desk:
    """Takes daemons' reports."""

    def __init__(self, context: process.Context) -> None:
        self._store = context.store
        self._owner = context.owner

    async def ready(self, params: daemon.ReadyParams, call: responder.CallContext) -> daemon.ReadyResult:
        """Record that a daemon is up, and start or repeat what its machine now needs. May be said any number of times."""
        machine_id, generation = ids.split_sandbox(call.sandbox)
        async with self._store.write(actor=self._owner) as tx:
            answer, reason = await self._record(tx, machine_id, generation, params)
        log.info(
            "ready_reported",
            machine_id=machine_id,
            generation=generation,
            boot=params.boot_id,
            answer=answer,
            why=reason,
        )
        return daemon.ReadyResult(answer=answer, now_ms=tx.now_ms, reason=reason)

    async def _record(
        self, tx: engine.Tx, machine_id: ids.MachineId, generation: int, params: daemon.ReadyParams
    ) -> tuple[daemon.ReadyAnswer, str]:
        machine = await machines.lock(tx, machine_id)
        if machine is None:
            return "wait", "the machine is not known here"
        if generation > machine.generation:
            return "wait", "the generation is newer than what is known here"
        if generation < machine.generation:
            return "stop", "the machine has a newer sandbox"
        if machine.phase in {phases.Phase.DELETING, phases.Phase.DELETED}:
            return "stop", "the machine is deleted"
        before = await sandboxes.get(tx, machine_id, generation)
        if before is None:
            return "wait", "the sandbox is not known here"
        is_news = before.ready_boot != params.boot_id
        await sandboxes.ready(
            tx, machine_id, generation, boot=params.boot_id, daemon_version=params.daemon_version
        )
        await machines.set_connection(tx, machine_id, phases.Connection.ONLINE, last_seen_at=tx.now_ms)
        if before.external_id is not None:
            await self._go_on(tx, machine, params, is_news=is_news)
        return "ok", ""

    async def _go_on(
        self, tx: engine.Tx, machine: machines.Machine, params: daemon.ReadyParams, *, is_news: bool
    ) -> None:
        facts = {"boot": params.boot_id, "daemonVersion": params.daemon_version, "lastExit": params.last_exit}
        if machine.phase in _ON_ITS_WAY:
            await machines.move(tx, machine.id, phases.SET_UP, data=facts, boot=params.boot_id)
        elif is_news and machine.phase in _IN_SETUP:
            await machines.move(tx, machine.id, phases.SET_UP_AGAIN, data=facts, boot=params.boot_id)
        elif is_news and machine.phase is phases.Phase.ACTIVE:
            machine, event_id = await machines.announce(
                tx, machine, events.MACHINE_DAEMON_STATUS_REPORTED, facts
            )
            await stage_runs.queue(tx, machine, phases.Stage.SETUP, caused_by=event_id, boot=params.boot_id)
