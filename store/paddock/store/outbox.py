"""Facts on their way out: written in the transaction that makes them true, sent afterwards by the relay.

Order within one lane (a machine, or a project) is order of commit. A row is marked sent only after the stream took it, so
an event is published at least once; its id makes the repetition harmless.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from paddock.contracts import events, ids, subjects
from paddock.store import engine, schema

MAX_REFUSALS = 5
"""A row the stream *refused* so often is parked and alarmed; time-outs never count."""
_out = schema.outbox
# Without RETURNING: nobody needs the position.
_INSERT = sa.insert(_out).inline()
_UNSENT = (
    sa.select(_out.c.position, _out.c.event_id, _out.c.subject, _out.c.lane, _out.c.body, _out.c.refusals)
    .where(_out.c.sent_at.is_(None), _out.c.parked_at.is_(None))
    .order_by(_out.c.position)
    .limit(sa.bindparam("most"))
)
_SENT = (
    sa.update(_out)
    .where(_out.c.position.in_(sa.bindparam("positions", expanding=True)))
    .values(sent_at=sa.bindparam("now"))
)


class Row(msgspec.Struct, frozen=True):
    position: int
    event_id: str
    subject: str
    lane: str
    body: bytes
    refusals: int


async def add(
    tx: engine.Tx,
    event_type: str,
    *,
    project: ids.ProjectId,
    machine: ids.MachineId | None = None,
    sequence: int = 0,
    data: dict[str, Any] | None = None,
) -> ids.EventId:
    """Write one event; it leaves when the transaction commits."""
    event_id = ids.EventId(ids.new_ulid(tx.now_ms))
    fact = events.new(
        event_type,
        event_id=event_id,
        at_ms=tx.now_ms,
        project=project,
        machine=machine,
        sequence=sequence,
        actor=tx.actor,
        causation_id=tx.caused_by,
        data=data,
    )
    await tx.execute(
        _INSERT,
        {
            "event_id": event_id,
            "subject": subjects.event(event_type, project, machine),
            "lane": machine or project,
            "body": events.encode(fact),
            "created_at": tx.now_ms,
        },
    )
    tx.has_news = True
    return event_id


async def unsent(tx: engine.Tx, *, limit: int) -> list[Row]:
    """The oldest rows that wait, in order; parked rows are passed over."""
    rows = await tx.rows(_UNSENT, {"most": limit})
    return [Row(*tuple(row)) for row in rows]


async def mark_sent(tx: engine.Tx, positions: Sequence[int]) -> None:
    """The stream took these."""
    await tx.execute(_SENT, {"positions": list(positions), "now": tx.now_ms})


async def mark_refused(tx: engine.Tx, position: int, error: str) -> bool:
    """The stream refused this one. Returns whether it is parked now: later rows of its lane go on without it."""
    refusals = await tx.scalar(
        sa.update(_out)
        .where(_out.c.position == position)
        .values(refusals=_out.c.refusals + 1, last_error=error[:500])
        .returning(_out.c.refusals)
    )
    if refusals is None or refusals < MAX_REFUSALS:
        return False
    await tx.execute(sa.update(_out).where(_out.c.position == position).values(parked_at=tx.now_ms))
    return True


async def forget_sent(tx: engine.Tx, *, older_than_ms: int) -> int:
    """Delete rows sent long ago. Returns how many."""
    done = await tx.execute(sa.delete(_out).where(_out.c.sent_at < tx.now_ms - older_than_ms))
    return done.rowcount


async def depth(tx: engine.Tx) -> tuple[int, int]:
    """How many rows wait, and how many are parked."""
    waiting = await tx.scalar(
        sa.select(sa.func.count())
        .select_from(_out)
        .where(_out.c.sent_at.is_(None), _out.c.parked_at.is_(None))
    )
    parked = await tx.scalar(
        sa.select(sa.func.count()).select_from(_out).where(_out.c.parked_at.is_not(None))
    )
    return int(waiting), int(parked)
