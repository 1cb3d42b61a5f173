"""Environment variables: written with values, listed without them, opened only to be pushed into a machine.

Machine over project over platform. Every change raises the desired version of the machines it reaches.
"""

import enum
from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from paddock.contracts import events, ids
from paddock.store import engine, machines, outbox, schema

_t = schema.env_vars


class Scope(enum.StrEnum):
    PLATFORM = "platform"
    PROJECT = "project"
    MACHINE = "machine"


class Variable(msgspec.Struct, frozen=True, kw_only=True):
    """What may be shown of one; never its value."""

    scope: Scope
    owner: str
    name: str
    version: int
    updated_at: int
    updated_by: str


async def put(
    tx: engine.Tx, scope: Scope, owner: str, variables: Mapping[str, str]
) -> list[machines.Machine]:
    """Set variables; the machines reached want a new environment file.

    Args:
        owner: The project or machine id; empty for the platform. It must exist.

    Returns:
        The machines reached.
    """
    insert = sqlite.insert(_t) if tx.is_sqlite else postgresql.insert(_t)
    for name, value in sorted(variables.items()):
        sealed = tx.secrets.seal(value)
        common = {"value": sealed, "updated_at": tx.now_ms, "updated_by": tx.actor}
        await tx.execute(
            insert.values(scope=scope, owner=owner, name=name, version=1, **common).on_conflict_do_update(
                index_elements=["scope", "owner", "name"], set_={**common, "version": _t.c.version + 1}
            )
        )
    return await _changed(tx, scope, owner, sorted(variables))


async def remove(
    tx: engine.Tx, scope: Scope, owner: str, names: Sequence[str]
) -> tuple[list[str], list[machines.Machine]]:
    """Unset variables. Returns the names that were there, and the machines reached."""
    rows = await tx.rows(
        sa.delete(_t)
        .where(_t.c.scope == scope, _t.c.owner == owner, _t.c.name.in_(list(names)))
        .returning(_t.c.name)
    )
    removed = sorted(row.name for row in rows)
    reached = await _changed(tx, scope, owner, removed) if removed else []
    return removed, reached


async def listed(tx: engine.Tx, scope: Scope, owner: str) -> list[Variable]:
    """The variables of one owner by name, without values."""
    rows = await tx.rows(
        sa.select(_t.c.scope, _t.c.owner, _t.c.name, _t.c.version, _t.c.updated_at, _t.c.updated_by)
        .where(_t.c.scope == scope, _t.c.owner == owner)
        .order_by(_t.c.name)
    )
    return [Variable(**{**row._asdict(), "scope": Scope(row.scope)}) for row in rows]


async def opened(tx: engine.Tx, machine: machines.Machine) -> dict[Scope, dict[str, str]]:
    """The values that reach one machine, by scope: for the one who renders its environment file, and nobody else."""
    found: dict[Scope, dict[str, str]] = {scope: {} for scope in Scope}
    rows = await tx.rows(
        sa.select(_t.c.scope, _t.c.name, _t.c.value).where(
            sa.or_(
                _t.c.scope == Scope.PLATFORM,
                sa.and_(_t.c.scope == Scope.PROJECT, _t.c.owner == machine.project_id),
                sa.and_(_t.c.scope == Scope.MACHINE, _t.c.owner == machine.id),
            )
        )
    )
    for row in rows:
        found[Scope(row.scope)][row.name] = tx.secrets.open(row.value)
    return found


async def _changed(tx: engine.Tx, scope: Scope, owner: str, names: list[str]) -> list[machines.Machine]:
    table = schema.machines
    affected: dict[Scope, sa.ColumnElement[bool]] = {
        Scope.PLATFORM: sa.true(),
        Scope.PROJECT: table.c.project_id == owner,
        Scope.MACHINE: table.c.id == owner,
    }
    if scope is Scope.PROJECT:
        await outbox.add(tx, events.PROJECT_ENV_CHANGED, project=ids.ProjectId(owner), data={"names": names})
    return await machines.want_env(tx, affected[scope])
