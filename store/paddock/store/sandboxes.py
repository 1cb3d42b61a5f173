"""Sandboxes: every incarnation of every machine, until the provider says it is gone. No sandbox is ever forgotten."""

from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from paddock.contracts import ids, phases
from paddock.store import engine, schema

_t = schema.sandboxes
_creds = schema.machine_credentials


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """One row; times are unix milliseconds."""

    machine_id: ids.MachineId
    generation: int
    node: str | None
    external_id: str | None
    created_at: int
    called_at: int | None
    external_at: int | None
    ready_boot: str | None
    ready_at: int | None
    daemon_version: str
    destroy_after: int | None
    gone_at: int | None
    end_reason: str

    @property
    def id(self) -> ids.SandboxId:
        return ids.sandbox_id(self.machine_id, self.generation)


_FIELDS: Final = Sandbox.__struct_fields__
_COLUMNS: Final = [_t.c[name] for name in _FIELDS]


def _sandbox(row: sa.Row[Any]) -> Sandbox:
    return Sandbox(**dict(zip(_FIELDS, row, strict=True)))


async def begin(tx: engine.Tx, machine: ids.MachineId, generation: int, *, node: str) -> Sandbox:
    """The provider on `node` is going to be called for this generation."""
    insert = sqlite.insert(_t) if tx.is_sqlite else postgresql.insert(_t)
    row = await tx.execute(
        insert.values(machine_id=machine, generation=generation, node=node, created_at=tx.now_ms)
        .on_conflict_do_update(
            index_elements=["machine_id", "generation"],
            set_={"node": node},
        )
        .returning(*_COLUMNS)
    )
    return _sandbox(row.one())


async def get(tx: engine.Tx, machine: str, generation: int) -> Sandbox | None:
    row = await tx.one(sa.select(*_COLUMNS).where(_t.c.machine_id == machine, _t.c.generation == generation))
    return None if row is None else _sandbox(row)


async def of_machine(tx: engine.Tx, machine: str) -> list[Sandbox]:
    """All generations, oldest first."""
    rows = await tx.rows(sa.select(*_COLUMNS).where(_t.c.machine_id == machine).order_by(_t.c.generation))
    return [_sandbox(row) for row in rows]


async def on_node(tx: engine.Tx, node: str) -> list[Sandbox]:
    """What should be at this host's provider: begun there and not known to be gone."""
    rows = await tx.rows(sa.select(*_COLUMNS).where(_t.c.node == node, _t.c.gone_at.is_(None)))
    return [_sandbox(row) for row in rows]


async def made(
    tx: engine.Tx, machine: str, generation: int, external_id: str, *, called_at_ms: int | None = None
) -> Sandbox | None:
    """The provider, called at `called_at_ms` (None: just now), answered; the first times are kept.

    Lock the machine first: the other half of this fact is `ready`.
    """
    return await _update(
        tx,
        machine,
        generation,
        external_id=external_id,
        called_at=sa.func.coalesce(_t.c.called_at, tx.now_ms if called_at_ms is None else called_at_ms),
        external_at=sa.func.coalesce(_t.c.external_at, tx.now_ms),
    )


async def ready(
    tx: engine.Tx, machine: str, generation: int, *, boot: str, daemon_version: str
) -> Sandbox | None:
    """Its daemon said ready. Lock the machine first: the other half of this fact is the external id."""
    return await _update(
        tx,
        machine,
        generation,
        ready_boot=boot,
        ready_at=sa.func.coalesce(_t.c.ready_at, tx.now_ms),
        daemon_version=daemon_version[:64],
    )


async def destroy_after(tx: engine.Tx, machine: str, generation: int, *, delay_ms: int) -> None:
    """Keep it for a look, then let the sweep queue its end."""
    await _update(tx, machine, generation, destroy_after=tx.now_ms + delay_ms)


async def gone(tx: engine.Tx, machine: str, generation: int, *, reason: str = "") -> None:
    """The provider has it no more."""
    await _update(
        tx, machine, generation, gone_at=sa.func.coalesce(_t.c.gone_at, tx.now_ms), end_reason=reason[:1000]
    )


async def to_destroy(tx: engine.Tx, *, limit: int) -> list[Sandbox]:
    """Sandboxes of failed machines whose time for a look is over."""
    machines = schema.machines
    rows = await tx.rows(
        sa.select(*_COLUMNS)
        .join(machines, machines.c.id == _t.c.machine_id)
        .where(
            machines.c.phase == phases.Phase.FAILED,
            _t.c.gone_at.is_(None),
            _t.c.destroy_after.is_not(None),
            _t.c.destroy_after < tx.now_ms,
        )
        .limit(limit)
    )
    return [_sandbox(row) for row in rows]


async def _update(tx: engine.Tx, machine: str, generation: int, **values: Any) -> Sandbox | None:
    row = await tx.one(
        sa.update(_t)
        .where(_t.c.machine_id == machine, _t.c.generation == generation)
        .values(**values)
        .returning(*_COLUMNS)
    )
    return None if row is None else _sandbox(row)


async def issued(tx: engine.Tx, *, user_key: str, machine: str, generation: int, expires_at_ms: int) -> None:
    """A bus credential was made for this sandbox; recorded before it leaves, so it can be revoked."""
    await tx.execute(
        sa.insert(_creds).values(
            user_key=user_key,
            machine_id=machine,
            generation=generation,
            issued_at=tx.now_ms,
            expires_at=expires_at_ms,
        )
    )


async def revoke(tx: engine.Tx, machine: str, *, up_to_generation: int) -> list[str]:
    """Mark the credentials of these generations revoked. Returns the user keys newly marked."""
    rows = await tx.rows(
        sa.update(_creds)
        .where(
            _creds.c.machine_id == machine,
            _creds.c.generation <= up_to_generation,
            _creds.c.revoked_at.is_(None),
        )
        .values(revoked_at=tx.now_ms)
        .returning(_creds.c.user_key)
    )
    return [row.user_key for row in rows]


async def revoked(tx: engine.Tx) -> dict[str, int]:
    """User key to the unix second of its revocation, of those not yet expired."""
    rows = await tx.rows(
        sa.select(_creds.c.user_key, _creds.c.revoked_at).where(
            _creds.c.revoked_at.is_not(None), _creds.c.expires_at > tx.now_ms
        )
    )
    return {row.user_key: int(row.revoked_at) // 1000 for row in rows}
