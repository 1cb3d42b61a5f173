"""The work: one row for each stage of a machine that has to be done, is being done, or was done.

A run is claimed under a lease by the database's clock, worked on with no transaction open, and finished only by whoever
still holds the lease. `claims` is the fencing number: a claimant that lost its lease finishes nothing. At most one run of
a machine is unfinished in each lane. The finished rows are the history people see.
"""

from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from paddock.contracts import ids, phases
from paddock.store import engine, schema

if TYPE_CHECKING:  # machines plans its next run through here
    from paddock.store import machines

LEASE_MS = 15_000
"""Renewed every third of it; after a crash another takes over when it has passed."""
_COVERED_BY: Final = {
    phases.Stage.SETUP: (phases.Stage.ENV, phases.Stage.PROBE),
    phases.Stage.ENV: (phases.Stage.PROBE,),
}
"""What the end of a stage does or queues in an active machine, so that it need not give way to that."""
_t = schema.stage_runs


_ENDS_GUEST_WORK: Final = frozenset(
    {
        phases.Phase.FAILED, phases.Phase.DELETING, phases.Phase.DELETED, phases.Phase.DETACHED,
        phases.Phase.STOPPING, phases.Phase.STOPPED, phases.Phase.STARTING,
    }
)  # fmt: skip


class Error(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong in an attempt."""

    kind: str
    message: str
    data: dict[str, Any] = msgspec.field(default_factory=dict)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One row; times are unix milliseconds."""

    id: int
    machine_id: ids.MachineId
    generation: int
    lane: phases.Lane
    stage: phases.Stage
    boot: str
    node: str | None
    queued_at: int
    due_at: int
    run: int
    attempt: int
    claims: int
    owner: str
    lease_until: int
    limit_at: int | None
    started_at: int | None
    finished_at: int | None
    outcome: str
    error: Error | None
    caused_by: str


_FIELDS: Final = Run.__struct_fields__
_COLUMNS: Final = [_t.c[name] for name in _FIELDS]
_IS_CLAIMABLE: Final = (
    _t.c.finished_at.is_(None),
    _t.c.due_at <= sa.bindparam("now"),
    _t.c.lease_until < sa.bindparam("now"),
    _t.c.stage.in_(sa.bindparam("stages", expanding=True)),
    sa.or_(_t.c.node.is_(None), _t.c.node == sa.bindparam("here")),
)
_IS_HELD: Final = (
    _t.c.id == sa.bindparam("held"),
    _t.c.claims == sa.bindparam("fence"),
    _t.c.finished_at.is_(None),
)
_DUE: Final = (
    sa.select(_t.c.machine_id).where(*_IS_CLAIMABLE).order_by(_t.c.due_at).limit(sa.bindparam("most"))
)
_ATTEMPT_MS: Final = sa.case(
    {stage.value: sa.bindparam(f"limit_{stage}", type_=sa.BigInteger) for stage in phases.Stage},
    value=_t.c.stage,
)
_CLAIM: Final = (
    sa.update(_t)
    .where(_t.c.machine_id == sa.bindparam("machine"), *_IS_CLAIMABLE)
    .values(
        owner=sa.bindparam("who"),
        claims=_t.c.claims + 1,
        node=sa.func.coalesce(_t.c.node, sa.bindparam("pin_to", type_=_t.c.node.type)),
        lease_until=sa.bindparam("until"),
        started_at=sa.func.coalesce(_t.c.started_at, sa.bindparam("now")),
        # A takeover has the whole time again: the crash was not its fault, and the phase's own limit bounds them all.
        limit_at=sa.bindparam("now", type_=_t.c.limit_at.type) + _ATTEMPT_MS,
    )
    .returning(*_COLUMNS)
)
_RENEW: Final = sa.update(_t).where(*_IS_HELD).values(lease_until=sa.bindparam("until"))
_HOLD: Final = sa.select(_t.c.id).where(*_IS_HELD).with_for_update()
_UNFINISHED: Final = sa.select(*_COLUMNS).where(
    _t.c.machine_id == sa.bindparam("machine"),
    _t.c.lane == sa.bindparam("in_lane"),
    _t.c.finished_at.is_(None),
)
_LAST_RUN: Final = (
    sa.select(_t.c.run, _t.c.outcome)
    .where(
        _t.c.machine_id == sa.bindparam("machine"),
        _t.c.generation == sa.bindparam("in_generation"),
        _t.c.stage == sa.bindparam("of_stage"),
    )
    .order_by(_t.c.id.desc())
    .limit(1)
)
_ENDING: Final = {"finished_at": sa.bindparam("now"), "outcome": sa.bindparam("ended"), "lease_until": 0}
_CLOSE: Final = (
    sa.update(_t).where(_t.c.id == sa.bindparam("held"), _t.c.finished_at.is_(None)).values(**_ENDING)
)
_CLOSE_LANE: Final = (
    sa.update(_t)
    .where(
        _t.c.machine_id == sa.bindparam("machine"),
        _t.c.lane == sa.bindparam("in_lane"),
        _t.c.finished_at.is_(None),
    )
    .values(**_ENDING)
)
_QUEUE: Final = {
    True: sqlite.insert(_t).on_conflict_do_nothing().returning(*_COLUMNS),
    False: postgresql.insert(_t).on_conflict_do_nothing().returning(*_COLUMNS),
}
"""By whether the database is SQLite."""


def _run(row: sa.Row[Any]) -> Run:
    values = dict(zip(_FIELDS, row, strict=True))
    values["lane"], values["stage"] = phases.Lane(values["lane"]), phases.Stage(values["stage"])
    values["error"] = msgspec.json.decode(values["error"], type=Error) if values["error"] else None
    return Run(**values)


def wanted(machine: "machines.Machine") -> phases.Stage | None:
    """The stage a machine needs next, read from its state alone; `provisioning` has the run that brought it there."""
    match machine.phase:
        case phases.Phase.CREATED | phases.Phase.STARTING:
            return phases.Stage.PROVISION
        case phases.Phase.SETTING_UP:
            return phases.Stage.SETUP
        case phases.Phase.PROBING:
            return phases.Stage.PROBE if machine.is_env_applied else phases.Stage.ENV
        case phases.Phase.ACTIVE:
            return None if machine.is_env_applied else phases.Stage.ENV
        case phases.Phase.DELETING:
            return phases.Stage.DESTROY
        case _:
            return None


async def plan(
    tx: engine.Tx, machine: "machines.Machine", *, caused_by: str = "", boot: str = ""
) -> Run | None:
    """Queue what the machine needs next, if anything; what is no longer needed gives way.

    A guest run that does not fit any more is closed even while somebody works on it: its fence is the lease. A provider
    run under a lease is left to end, for two provider calls of one machine must not overlap; its finish plans again.
    """
    tx.planned.add(machine.id)
    if machine.phase in _ENDS_GUEST_WORK or (
        machine.phase is phases.Phase.CREATED and machine.generation > 1
    ):
        await _close_lane(tx, machine.id, phases.Lane.GUEST)
    stage = wanted(machine)
    return None if stage is None else await queue(tx, machine, stage, caused_by=caused_by, boot=boot)


async def queue(
    tx: engine.Tx,
    machine: "machines.Machine",
    stage: phases.Stage,
    *,
    caused_by: str = "",
    boot: str = "",
    after_ms: int = 0,
) -> Run | None:
    """Queue one run, in the place of another that waits in its lane.

    Returns:
        The run, or None when the lane is busy with the same work (or, in the provider lane, with any).
    """
    lane = phases.LANE_OF[stage]
    number = 1
    if machine.seq > 1:  # else it is new, and there is nothing to look for
        if not await _makes_room(tx, machine, stage, lane, boot):
            return None
        number = await _next_run_number(tx, machine, stage)
    values = {
        "machine_id": machine.id,
        "generation": machine.generation,
        "lane": lane,
        "stage": stage,
        "boot": boot,
        "queued_at": tx.now_ms,
        "due_at": tx.now_ms + after_ms,
        "run": number,
        "attempt": 0,
        "claims": 0,
        "lease_until": 0,
        "caused_by": caused_by,
    }
    row = await tx.one(_QUEUE[tx.is_sqlite], values)
    return None if row is None else _run(row)


async def _makes_room(
    tx: engine.Tx, machine: "machines.Machine", stage: phases.Stage, lane: phases.Lane, boot: str
) -> bool:
    """Whether the lane is free for this work, after what waits there without need was closed."""
    current = await unfinished(tx, machine.id, lane)
    if current is None:
        return True
    is_same = (current.stage, current.generation, current.boot) == (
        stage,
        machine.generation,
        boot or current.boot,
    )
    is_leased = current.lease_until > tx.now_ms
    if is_same or (lane is phases.Lane.PROVIDER and is_leased):
        return False
    is_covered = current.generation == machine.generation and stage in _COVERED_BY.get(current.stage, ())
    if machine.phase is phases.Phase.ACTIVE and lane is phases.Lane.GUEST and (is_leased or is_covered):
        return False  # its finish looks again; an active machine's work is not thrown away
    await _close(tx, current, "superseded")
    return True


async def _next_run_number(tx: engine.Tx, machine: "machines.Machine", stage: phases.Stage) -> int:
    # It goes into call ids. After a known failure the same id would only return the failure again.
    row = await tx.one(
        _LAST_RUN, {"machine": machine.id, "in_generation": machine.generation, "of_stage": stage}
    )
    if row is None:
        return 1
    return int(row.run) + int(row.outcome == "failed")


async def unfinished(tx: engine.Tx, machine: str, lane: phases.Lane) -> Run | None:
    row = await tx.one(_UNFINISHED, {"machine": machine, "in_lane": lane})
    return None if row is None else _run(row)


async def due(
    tx: engine.Tx, stages: frozenset[phases.Stage], *, node: str, limit: int
) -> list[ids.MachineId]:
    """Machines with claimable work of these stages, longest due first."""
    rows = await tx.rows(_DUE, {**_claimable(tx, stages, node), "most": limit})
    return [ids.MachineId(row.machine_id) for row in rows]


async def claim(
    tx: engine.Tx,
    machine: str,
    stages: frozenset[phases.Stage],
    *,
    owner: str,
    node: str,
    is_pinning: bool = False,
    lease_ms: int = LEASE_MS,
) -> Run | None:
    """Take the machine's claimable run of these stages under a lease, or None. Lock the machine first.

    The stages must be of one lane: a machine has at most one unfinished run in each. With `is_pinning` only this host may
    claim it from now on: its processes live here.
    """
    given = {**_claimable(tx, stages, node), "machine": machine, "who": owner, "until": tx.now_ms + lease_ms}
    given |= {f"limit_{stage}": int(limit_s * 1000) for stage, limit_s in phases.ATTEMPT_LIMIT_S.items()}
    row = await tx.one(_CLAIM, {**given, "pin_to": node if is_pinning else None})
    return None if row is None else _run(row)


def _claimable(tx: engine.Tx, stages: frozenset[phases.Stage], node: str) -> dict[str, Any]:
    return {"now": tx.now_ms, "stages": sorted(stages), "here": node}


async def renew(tx: engine.Tx, held: Run, *, lease_ms: int = LEASE_MS) -> bool:
    """Hold on to a lease. Returns False when it was lost: stop working."""
    done = await tx.execute(_RENEW, {"held": held.id, "fence": held.claims, "until": tx.now_ms + lease_ms})
    return done.rowcount == 1


async def still_held(tx: engine.Tx, held: Run) -> bool:
    """Whether this claim may still finish, and if so nobody else may until the transaction ends."""
    return await tx.one(_HOLD, {"held": held.id, "fence": held.claims}) is not None


def _held(held: Run) -> list[sa.ColumnElement[bool]]:
    return [_t.c.id == held.id, _t.c.claims == held.claims, _t.c.finished_at.is_(None)]


async def finish(tx: engine.Tx, held: Run, outcome: str, error: Error | None = None) -> None:
    """Close a run with `done`, `failed`, `cancelled` or `superseded`."""
    await _close(tx, held, outcome, error)


async def try_again(
    tx: engine.Tx, held: Run, *, after_ms: int, error: Error | None, is_failure: bool
) -> None:
    """Give the run back, due later. A failure counts as an attempt and gets new call ids; waiting does not.

    `error` is the last failure people see; None leaves the one before.
    """
    bump = 1 if is_failure else 0
    changed: dict[str, Any] = {
        "due_at": tx.now_ms + after_ms,
        "lease_until": 0,
        "limit_at": None,
        "attempt": _t.c.attempt + bump,
        "run": _t.c.run + bump,
    }
    if error is not None:
        changed["error"] = msgspec.json.encode(error).decode()
    await tx.execute(sa.update(_t).where(*_held(held)).values(**changed))


async def pin(tx: engine.Tx, held: Run, node: str) -> None:
    """From now on only this host may claim the run: the machine's HOME is there."""
    await tx.execute(sa.update(_t).where(*_held(held)).values(node=node))


async def history(tx: engine.Tx, machine: str) -> list[Run]:
    """Every run of a machine, oldest first."""
    rows = await tx.rows(sa.select(*_COLUMNS).where(_t.c.machine_id == machine).order_by(_t.c.id))
    return [_run(row) for row in rows]


async def _close_lane(tx: engine.Tx, machine: str, lane: phases.Lane) -> None:
    await tx.execute(
        _CLOSE_LANE, {"machine": machine, "in_lane": lane, "now": tx.now_ms, "ended": "cancelled"}
    )


async def _close(tx: engine.Tx, run: Run, outcome: str, error: Error | None = None) -> None:
    await tx.execute(_CLOSE, {"held": run.id, "now": tx.now_ms, "ended": outcome})
    if error is not None:
        text = msgspec.json.encode(error).decode()
        await tx.execute(sa.update(_t).where(_t.c.id == run.id).values(error=text))
