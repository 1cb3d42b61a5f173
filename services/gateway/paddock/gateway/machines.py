"""`machine.*` that change or show the row: create, get, list, delete, retry, history."""

import hashlib
from typing import Any, Final

import pydantic

from paddock.contracts import errors, events, ids, phases
from paddock.contracts.api import machines, methods
from paddock.gateway import jsonrpc, last_seen, machine_cache, moments, pages, waiting
from paddock.store import engine, env_vars, projects, sandboxes, stage_runs
from paddock.store import machines as stored


class Machines:
    def __init__(
        self,
        store: engine.Store,
        waits: waiting.Waiting,
        cache: machine_cache.MachineCache,
        seen: last_seen.LastSeen,
    ) -> None:
        self._store, self._waits, self._cache, self._seen = store, waits, cache, seen

    def routes(self) -> tuple[jsonrpc.AnyRoute, ...]:
        return (
            jsonrpc.Route(methods.MACHINE_CREATE, self.create),
            jsonrpc.Route(methods.MACHINE_GET, self.get),
            jsonrpc.Route(methods.MACHINE_LIST, self.listed),
            jsonrpc.Route(methods.MACHINE_DELETE, self.delete),
            jsonrpc.Route(methods.MACHINE_RETRY, self.retry),
            jsonrpc.Route(methods.MACHINE_HISTORY, self.history),
        )

    async def create(self, params: machines.MachineCreate, call: jsonrpc.Call) -> machines.Machine:
        new_id = ids.new_machine_id()
        async with self._store.write(actor=call.caller.id) as tx:
            project = await projects.get(tx, params.project_id)
            machine = await stored.create(
                tx,
                machine_id=new_id,
                project=project.id,
                provider=project.provider,
                image=project.image,
                name=params.name or "",
                labels=params.labels,
                client_token=params.client_token,
                request_digest="" if params.client_token is None else _digest(params),
            )
            if machine.id == new_id and params.env:
                await env_vars.put(tx, env_vars.Scope.MACHINE, machine.id, params.env)
                machine = await stored.get(tx, machine.id)
        return await self._shown(await self._waits.until(machine, _is_settled, wait_s=params.wait_s))

    async def get(self, params: machines.MachineGet, _call: jsonrpc.Call) -> machines.Machine:
        async with self._store.read() as tx:
            machine = await stored.get(tx, params.machine_id)
        return await self._shown(machine)

    async def listed(self, params: machines.MachineList, _call: jsonrpc.Call) -> machines.MachinePage:
        after = pages.after(params.cursor)
        async with self._store.read() as tx:
            project = None
            if params.project_id is not None:
                project = (await projects.get(tx, params.project_id)).id
            among = None if params.phases is None else frozenset(params.phases)
            rows = await stored.find(tx, project=project, among=among, after=after, limit=params.limit + 1)
        page, next_cursor = pages.cut(rows, params.limit)
        seen = await self._seen.of(page)
        rows_shown = [shown(row, seen.get(row.id)) for row in page]
        return machines.MachinePage(machines=rows_shown, next_cursor=next_cursor)

    async def delete(self, params: machines.MachineDelete, call: jsonrpc.Call) -> machines.Machine:
        async with self._store.write(actor=call.caller.id) as tx:
            await stored.lock(tx, params.machine_id)
            # None: it is being deleted or was, and asking twice is asking once.
            moved = await stored.move(tx, params.machine_id, phases.DELETE)
            machine = moved or await stored.get(tx, params.machine_id)
        self._cache.forget(machine.id)
        return await self._shown(await self._waits.until(machine, _is_deleted, wait_s=params.wait_s))

    async def retry(self, params: machines.MachineRetry, call: jsonrpc.Call) -> machines.Machine:
        async with self._store.write(actor=call.caller.id) as tx:
            await stored.lock(tx, params.machine_id)
            machine = await stored.move(tx, params.machine_id, phases.RETRY, next_generation=True)
            if machine is None:
                phase = (await stored.get(tx, params.machine_id)).phase
                raise errors.WrongPhase(
                    f"cannot retry machine {params.machine_id}: it is {phase}, and only a failed one can be retried",
                    data={"phase": phase},
                )
        self._cache.forget(machine.id)
        return await self._shown(await self._waits.until(machine, _is_settled, wait_s=params.wait_s))

    async def _shown(self, machine: stored.Machine) -> machines.Machine:
        seen = await self._seen.of([machine])
        return shown(machine, seen.get(machine.id))

    async def history(self, params: machines.MachineHistory, _call: jsonrpc.Call) -> machines.History:
        async with self._store.read() as tx:
            machine = await stored.get(tx, params.machine_id)
            moves = await stored.history(tx, machine.id)
            runs = await stage_runs.history(tx, machine.id)
            boxes = await sandboxes.of_machine(tx, machine.id)
        before: list[stored.Transition | None] = [None, *moves]
        return machines.History(
            machine_id=machine.id,
            moves=[_move(one, previous) for previous, one in zip(before, moves, strict=False)],
            runs=[_run(one) for one in runs],
            sandboxes=[_sandbox(one) for one in boxes],
        )


def shown(machine: stored.Machine, seen_at_ms: int | None) -> machines.Machine:
    """A machine as people see it."""
    return machines.Machine(
        id=machine.id,
        project_id=machine.project_id,
        name=machine.name,
        phase=machine.phase,
        phase_since=events.time_text(machine.phase_at),
        reason=_reason(machine.reason),
        generation=machine.generation,
        connection=machine.connection,
        last_seen_at=moments.text(seen_at_ms),
        health=machine.health,
        health_reason=machine.health_reason,
        env=machines.EnvVersions(desired=machine.env_desired, applied=machine.env_applied),
        labels=machine.labels,
        created_at=events.time_text(machine.created_at),
        active_at=moments.text(machine.active_at),
        limit_at=moments.text(machine.limit_at),
        provider=machine.provider,
        sandbox_id=machine.sandbox_id,
    )


def _is_settled(machine: stored.Machine) -> bool:
    return machine.phase not in phases.UNFINISHED


def _is_deleted(machine: stored.Machine) -> bool:
    return machine.phase is phases.Phase.DELETED


_MEMBERS: Final = pydantic.TypeAdapter(dict[str, Any])


def _digest(params: machines.MachineCreate) -> str:
    """Of all that makes it the same request. Values of variables count by their digest, salted with the token."""
    members: dict[str, Any] = params.model_dump(exclude={"client_token", "wait_s", "env"})
    salt = hashlib.blake2b(str(params.client_token).encode(), digest_size=16).digest()
    members["env"] = {
        name: hashlib.blake2b(value.encode(), key=salt, digest_size=16).hexdigest()
        for name, value in sorted(params.env.items())
    }
    members["labels"] = dict(sorted(params.labels.items()))
    return hashlib.sha256(_MEMBERS.dump_json(members)).hexdigest()


def _reason(reason: stored.Reason | None) -> machines.Reason | None:
    if reason is None:
        return None
    return machines.Reason(
        stage=reason.stage,
        kind=reason.kind,
        message=reason.message,
        data=reason.data,
        log_tail=reason.log_tail,
    )


def _move(one: stored.Transition, previous: stored.Transition | None) -> machines.HistoryMove:
    return machines.HistoryMove(
        sequence=one.seq,
        generation=one.generation,
        phase=one.phase,
        at=events.time_text(one.at),
        after_ms=None if previous is None else one.at - previous.at,
        actor=one.actor,
        reason=_reason(one.reason),
    )


def _run(one: stage_runs.Run) -> machines.HistoryRun:
    has_both = one.started_at is not None and one.finished_at is not None
    return machines.HistoryRun(
        generation=one.generation,
        lane=one.lane,
        stage=one.stage,
        run=one.run,
        attempts=one.attempt,
        owner=one.owner,
        queued_at=events.time_text(one.queued_at),
        started_at=moments.text(one.started_at),
        finished_at=moments.text(one.finished_at),
        took_ms=(one.finished_at or 0) - (one.started_at or 0) if has_both else None,
        outcome=one.outcome,
        error="" if one.error is None else one.error.message,
        error_kind="" if one.error is None else one.error.kind,
        caused_by=one.caused_by,
    )


def _sandbox(one: sandboxes.Sandbox) -> machines.HistorySandbox:
    return machines.HistorySandbox(
        sandbox_id=one.id,
        generation=one.generation,
        node=one.node,
        called_at=moments.text(one.called_at),
        external_at=moments.text(one.external_at),
        ready_at=moments.text(one.ready_at),
        gone_at=moments.text(one.gone_at),
        end_reason=one.end_reason,
    )
