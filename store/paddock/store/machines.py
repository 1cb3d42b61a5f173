"""Machines: the row that says what is, and the moves that change it.

A move is one UPDATE that names the phases it may leave, so two who move at once cannot both win. It writes the machine's
next number, its transition, its event, and the next stage's run (`stage_runs.plan`) in the same transaction.
"""

import functools
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import exc

from paddock.contracts import errors, events, ids, phases
from paddock.store import engine, outbox, schema, stage_runs

_t = schema.machines
_moves = schema.transitions


class Reason(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Why a machine failed, or is being made anew: what people read first."""

    stage: str
    kind: str
    message: str
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    log_tail: str = ""


def reason_of(stage: str, fault: errors.Fault, *, log_tail: str = "") -> Reason:
    return Reason(stage=stage, kind=fault.kind, message=fault.message, data=fault.data, log_tail=log_tail)


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """One row; times are unix milliseconds."""

    id: ids.MachineId
    project_id: ids.ProjectId
    name: str
    provider: str
    image: str
    labels: dict[str, str]
    client_token: str | None
    request_digest: str
    phase: phases.Phase
    phase_at: int
    reason: Reason | None
    limit_at: int | None
    generation: int
    connection: phases.Connection
    last_seen_at: int | None
    health: phases.Health
    health_reason: str
    env_desired: int
    env_applied: int
    seq: int
    created_at: int
    active_at: int | None
    deleted_at: int | None

    @property
    def sandbox_id(self) -> ids.SandboxId:
        return ids.sandbox_id(self.id, self.generation)

    @property
    def is_env_applied(self) -> bool:
        return self.env_applied == self.env_desired


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    seq: int
    generation: int
    phase: phases.Phase
    at: int
    actor: str
    event_id: str
    caused_by: str
    reason: Reason | None


_FIELDS: Final = Machine.__struct_fields__
_COLUMNS: Final = [_t.c[name] for name in _FIELDS]
_GET: Final = sa.select(*_COLUMNS).where(_t.c.id == sa.bindparam("machine"))
_LOCK: Final = _GET.with_for_update()
_NEXT_SEQ: Final = (
    sa.update(_t).where(_t.c.id == sa.bindparam("machine")).values(seq=_t.c.seq + 1).returning(_t.c.seq)
)
_NOTE_MOVE: Final = sa.insert(_moves).inline()


def _machine(row: sa.Row[Any]) -> Machine:
    values = dict(zip(_FIELDS, row, strict=True))
    values["labels"] = msgspec.json.decode(values["labels"])
    values["reason"] = _read_reason(values["reason"])
    for name, kind in (("phase", phases.Phase), ("connection", phases.Connection), ("health", phases.Health)):
        values[name] = kind(values[name])
    return Machine(**values)


def _read_reason(text: str | None) -> Reason | None:
    return msgspec.json.decode(text, type=Reason) if text else None


async def create(
    tx: engine.Tx,
    *,
    project: ids.ProjectId,
    provider: str,
    name: str = "",
    image: str = "",
    labels: dict[str, str] | None = None,
    client_token: str | None = None,
    request_digest: str = "",
    machine_id: ids.MachineId | None = None,
) -> Machine:
    """A new machine in `created`, with its first stage queued and `machine.created` on its way.

    The same client token and request digest give the machine made before.

    Raises:
        errors.Conflict: The client token was used in this project for another request.
    """
    if client_token is not None and (known := await _by_token(tx, project, client_token)):
        return _same_request(known, request_digest)
    new_id = machine_id or ids.new_machine_id()
    row = sa.insert(_t).values(
        id=new_id,
        project_id=project,
        name=name or new_id,
        provider=provider,
        image=image,
        labels=msgspec.json.encode(labels or {}).decode(),
        client_token=client_token,
        request_digest=request_digest,
        phase=phases.Phase.CREATED,
        phase_at=tx.now_ms,
        limit_at=tx.now_ms + int(phases.CREATED_LIMIT_S * 1000),
        generation=1,
        connection=phases.Connection.NEVER,
        health=phases.Health.UNKNOWN,
        env_desired=1,
        env_applied=0,
        seq=1,
        created_at=tx.now_ms,
    )
    try:
        async with tx.conn.savepoint():
            made = _machine((await tx.execute(row.returning(*_COLUMNS))).one())
    except exc.IntegrityError as error:
        # Two creates with one token at the same moment: the second finds the first's row now.
        if client_token is None or not engine.is_unique_violation(error):
            raise
        known = await _by_token(tx, project, client_token)
        if known is None:
            raise
        return _same_request(known, request_digest)
    return await _arrived(tx, made, events.MACHINE_CREATED, {})


async def get(tx: engine.Tx, machine: str) -> Machine:
    """One machine, deleted ones included.

    Raises:
        errors.NotFound: There is none.
    """
    row = await tx.one(_GET, {"machine": machine})
    if row is None:
        raise errors.NotFound(f"cannot find machine {machine}")
    return _machine(row)


async def lock(tx: engine.Tx, machine: str) -> Machine | None:
    """The machine, held until the transaction ends: whoever decides about it locks it first, before its runs."""
    row = await tx.one(_LOCK, {"machine": machine})
    return None if row is None else _machine(row)


async def find(
    tx: engine.Tx,
    *,
    project: ids.ProjectId | None = None,
    among: frozenset[phases.Phase] | None = None,
    after: tuple[int, str] | None = None,
    limit: int = 100,
) -> list[Machine]:
    """Machines, newest first.

    Args:
        project: Only of this project.
        among: Only in these phases; None leaves out deleted ones.
        after: `(created_at, id)` of the last one of the page before.
        limit: At most this many.
    """
    query = sa.select(*_COLUMNS).order_by(_t.c.created_at.desc(), _t.c.id.desc()).limit(limit)
    if project is not None:
        query = query.where(_t.c.project_id == project)
    wanted = among if among is not None else frozenset(phases.Phase) - phases.ENDED
    query = query.where(_t.c.phase.in_(sorted(wanted)))
    if after is not None:
        query = query.where(sa.tuple_(_t.c.created_at, _t.c.id) < sa.tuple_(*map(sa.literal, after)))
    return [_machine(row) for row in await tx.rows(query)]


async def move(
    tx: engine.Tx,
    machine: str,
    way: phases.Move,
    *,
    reason: Reason | None = None,
    data: dict[str, Any] | None = None,
    next_generation: bool = False,
    boot: str = "",
) -> Machine | None:
    """Move a machine along one row of the table of moves.

    Args:
        reason: Why, for a failure or a re-creation; shown to people.
        data: Members of the event; no secret.
        next_generation: The move begins another sandbox.
        boot: The daemon's boot that caused it; the next guest run belongs to it.

    Returns:
        The machine after the move, or None when it was in none of the move's phases: somebody else was first.
    """
    row = await tx.one(
        _moving(way.target, next_generation),
        {
            "machine": machine,
            "sources": sorted(way.sources),
            "now": tx.now_ms,
            "until": None if way.limit_s is None else tx.now_ms + int(way.limit_s * 1000),
            "why": None if reason is None else msgspec.json.encode(reason).decode(),
        },
    )
    if row is None:
        return None
    facts = dict(data or {})
    if reason is not None:
        facts["reason"] = msgspec.to_builtins(reason)
    return await _arrived(tx, _machine(row), way.event, facts, boot=boot)


@functools.cache
def _moving(target: phases.Phase, next_generation: bool) -> sa.Update:
    """The UPDATE of a move; with bound parameters machine, sources, now, until and why."""
    changed: dict[str, Any] = {
        "phase": target,
        "phase_at": sa.bindparam("now"),
        "limit_at": sa.bindparam("until"),
        "reason": sa.bindparam("why"),
        "seq": _t.c.seq + 1,
    }
    match target:
        case phases.Phase.ACTIVE:
            changed |= {"active_at": sa.bindparam("now"), "health": phases.Health.WELL, "health_reason": ""}
        case phases.Phase.DELETED:
            changed |= {"deleted_at": sa.bindparam("now"), "connection": phases.Connection.OFFLINE}
        case phases.Phase.CREATED:
            changed |= {"health": phases.Health.UNKNOWN, "health_reason": ""}
        case _:
            pass
    if next_generation:
        changed |= {
            "generation": _t.c.generation + 1,
            "env_applied": 0,
            "connection": phases.Connection.NEVER,
        }
    is_source = _t.c.phase.in_(sa.bindparam("sources", expanding=True))
    return (
        sa.update(_t)
        .where(_t.c.id == sa.bindparam("machine"), is_source)
        .values(**changed)
        .returning(*_COLUMNS)
    )


async def _arrived(
    tx: engine.Tx, machine: Machine, event_type: str, data: dict[str, Any], *, boot: str = ""
) -> Machine:
    event_id = await _tell(tx, machine, event_type, data)
    reason = None if machine.reason is None else msgspec.json.encode(machine.reason).decode()
    await tx.execute(
        _NOTE_MOVE,
        {
            "machine_id": machine.id,
            "seq": machine.seq,
            "generation": machine.generation,
            "phase": machine.phase,
            "at": tx.now_ms,
            "actor": tx.actor,
            "event_id": event_id,
            "caused_by": tx.caused_by,
            "reason": reason,
        },
    )
    await stage_runs.plan(tx, machine, caused_by=event_id, boot=boot)
    return machine


async def announce(
    tx: engine.Tx, machine: Machine, event_type: str, data: dict[str, Any] | None = None
) -> tuple[Machine, ids.EventId]:
    """Give the machine its next number and write an event with it."""
    seq = await tx.scalar(
        sa.update(_t).where(_t.c.id == machine.id).values(seq=_t.c.seq + 1).returning(_t.c.seq)
    )
    machine = msgspec.structs.replace(machine, seq=seq)
    return machine, await _tell(tx, machine, event_type, data or {})


async def _tell(tx: engine.Tx, machine: Machine, event_type: str, data: dict[str, Any]) -> ids.EventId:
    facts = {"phase": machine.phase, "generation": machine.generation, **data}
    return await outbox.add(
        tx, event_type, project=machine.project_id, machine=machine.id, sequence=machine.seq, data=facts
    )


async def set_connection(tx: engine.Tx, machine: str, now: phases.Connection, *, last_seen_at: int) -> bool:
    """Record whether its daemon is on the bus, and announce a change. Returns whether it changed."""
    row = await tx.one(
        sa.update(_t)
        .where(_t.c.id == machine, _t.c.connection != now, _t.c.phase.not_in(sorted(phases.ENDED)))
        .values(connection=now, last_seen_at=last_seen_at)
        .returning(*_COLUMNS)
    )
    if row is None:
        return False
    await announce(
        tx, _machine(row), events.MACHINE_CONNECTION_CHANGED, {"connection": now, "lastSeenAt": last_seen_at}
    )
    return True


async def set_health(tx: engine.Tx, machine: str, now: phases.Health, reason: str = "") -> bool:
    """Record how an active machine is, and announce a change. Returns whether it changed."""
    row = await tx.one(
        sa.update(_t)
        .where(
            _t.c.id == machine,
            _t.c.phase == phases.Phase.ACTIVE,
            sa.or_(_t.c.health != now, _t.c.health_reason != reason[:1000]),
        )
        .values(health=now, health_reason=reason[:1000])
        .returning(*_COLUMNS)
    )
    if row is None:
        return False
    await announce(tx, _machine(row), events.MACHINE_HEALTH_CHANGED, {"health": now, "reason": reason[:1000]})
    return True


async def set_env_applied(tx: engine.Tx, machine: str, version: int) -> None:
    """The machine was seen to hold the environment file of this version."""
    await tx.execute(sa.update(_t).where(_t.c.id == machine).values(env_applied=version))


async def want_env(tx: engine.Tx, affected: sa.ColumnElement[bool]) -> list[Machine]:
    """Raise the desired environment version of the machines for which `affected` holds, and queue the work.

    Returns:
        The machines, in no order.
    """
    rows = await tx.rows(
        sa.update(_t)
        .where(affected, _t.c.phase.not_in([phases.Phase.DELETING, phases.Phase.DELETED]))
        .values(env_desired=_t.c.env_desired + 1)
        .returning(*_COLUMNS)
    )
    changed = []
    for row in rows:
        machine, event_id = await announce(
            tx, _machine(row), events.MACHINE_ENV_CHANGED, {"envDesired": row.env_desired}
        )
        await stage_runs.plan(tx, machine, caused_by=event_id)
        changed.append(machine)
    return changed


async def lacking_env_run(tx: engine.Tx, *, limit: int) -> list[Machine]:
    """Active machines whose applied environment is not the desired one and for which nobody works: the sweep's net."""
    runs = schema.stage_runs
    unfinished = sa.exists().where(
        runs.c.machine_id == _t.c.id, runs.c.lane == phases.Lane.GUEST, runs.c.finished_at.is_(None)
    )
    rows = await tx.rows(
        sa.select(*_COLUMNS)
        .where(_t.c.phase == phases.Phase.ACTIVE, _t.c.env_applied != _t.c.env_desired, ~unfinished)
        .limit(limit)
    )
    return [_machine(row) for row in rows]


async def overdue(tx: engine.Tx, *, limit: int) -> list[Machine]:
    """Machines past the limit of their phase."""
    rows = await tx.rows(
        sa.select(*_COLUMNS)
        .where(_t.c.phase.in_(sorted(phases.UNFINISHED)), _t.c.limit_at < tx.now_ms)
        .order_by(_t.c.limit_at)
        .limit(limit)
    )
    return [_machine(row) for row in rows]


async def shift_limits(
    tx: engine.Tx, by_ms: int, *, among: frozenset[phases.Phase] = phases.UNFINISHED
) -> None:
    """Nobody was there to work for `by_ms`: give that time back."""
    await tx.execute(
        sa.update(_t)
        .where(_t.c.limit_at.is_not(None), _t.c.phase.in_(sorted(among)))
        .values(limit_at=_t.c.limit_at + by_ms)
    )


async def recreations(tx: engine.Tx, machine: str, *, within_ms: int) -> int:
    """How often it was made anew after its sandbox vanished, lately."""
    count = await tx.scalar(
        sa.select(sa.func.count())
        .select_from(_moves)
        .where(
            _moves.c.machine_id == machine,
            _moves.c.phase == phases.Phase.CREATED,
            _moves.c.reason.is_not(None),
            _moves.c.at > tx.now_ms - within_ms,
        )
    )
    return int(count)


async def history(tx: engine.Tx, machine: str) -> list[Transition]:
    """Every phase it entered, oldest first."""
    rows = await tx.rows(
        sa.select(
            _moves.c.seq, _moves.c.generation, _moves.c.phase, _moves.c.at, _moves.c.actor, _moves.c.event_id,
            _moves.c.caused_by, _moves.c.reason,
        ).where(_moves.c.machine_id == machine).order_by(_moves.c.seq)
    )  # fmt: skip
    return [
        Transition(
            seq=row.seq,
            generation=row.generation,
            phase=phases.Phase(row.phase),
            at=row.at,
            actor=row.actor,
            event_id=row.event_id,
            caused_by=row.caused_by,
            reason=_read_reason(row.reason),
        )
        for row in rows
    ]


async def _by_token(tx: engine.Tx, project: str, client_token: str) -> Machine | None:
    row = await tx.one(
        sa.select(*_COLUMNS).where(_t.c.project_id == project, _t.c.client_token == client_token)
    )
    return None if row is None else _machine(row)


def _same_request(known: Machine, request_digest: str) -> Machine:
    if known.request_digest != request_digest:
        raise errors.Conflict(
            "cannot create the machine: this clientToken was used for another request",
            data={"machineId": known.id},
        )
    return known
