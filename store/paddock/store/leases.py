"""Elections: whoever holds the row does the work that only one may do (the relay, the sweeps)."""

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from paddock.store import engine, schema

_t = schema.leases


class Held(msgspec.Struct, frozen=True):
    """`gap_ms` is how long nobody had renewed before this time; 0 at the very first."""

    gap_ms: int


async def acquire(tx: engine.Tx, name: str, owner: str, *, lease_ms: int) -> Held | None:
    """Take or renew a lease. Returns None while another holds it."""
    insert = sqlite.insert(_t) if tx.is_sqlite else postgresql.insert(_t)
    await tx.execute(insert.values(name=name, owner="", until=0, beat_at=tx.now_ms).on_conflict_do_nothing())
    row = await tx.one(
        sa.select(_t.c.owner, _t.c.until, _t.c.beat_at).where(_t.c.name == name).with_for_update()
    )
    if row is None or (row.owner != owner and row.until > tx.now_ms):
        return None
    await tx.execute(
        sa.update(_t)
        .where(_t.c.name == name)
        .values(owner=owner, until=tx.now_ms + lease_ms, beat_at=tx.now_ms)
    )
    return Held(max(0, tx.now_ms - row.beat_at))


async def release(tx: engine.Tx, name: str, owner: str) -> None:
    """Let another take it at once; nothing when it is not ours."""
    await tx.execute(sa.update(_t).where(_t.c.name == name, _t.c.owner == owner).values(until=0))


async def last_beat(tx: engine.Tx, prefix: str) -> int | None:
    """The latest renewal among leases whose name starts with `prefix`, or None when there never was one."""
    at = await tx.scalar(
        sa.select(sa.func.max(_t.c.beat_at)).where(_t.c.name.startswith(prefix, autoescape=True))
    )
    return None if at is None else int(at)
