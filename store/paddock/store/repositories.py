"""Repositories of a project: what is cloned into each of its machines, in order, and the secret for private ones."""

from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import exc

from paddock.contracts import errors, ids
from paddock.store import engine, schema

_t = schema.repositories


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """One row without its secret."""

    id: str
    project_id: ids.ProjectId
    url: str
    branch: str
    path: str
    has_secret: bool
    created_at: int


# `secret IS NOT NULL` in SQLite's RETURNING is always true (3.40); the column itself comes and is looked at here.
_SHOWN: Final = [_t.c.id, _t.c.project_id, _t.c.url, _t.c.branch, _t.c.path, _t.c.secret, _t.c.created_at]


def _repository(row: sa.Row[Any]) -> Repository:
    values = dict(zip(Repository.__struct_fields__, row, strict=True))
    return Repository(**{**values, "has_secret": values["has_secret"] is not None})


async def add(
    tx: engine.Tx, *, project: str, url: str, path: str, branch: str = "", secret: str | None = None
) -> Repository:
    """Add one at the end of the project's list.

    Raises:
        errors.Conflict: The project has another at this path.
    """
    position = await tx.scalar(sa.select(sa.func.count()).select_from(_t).where(_t.c.project_id == project))
    row = sa.insert(_t).values(
        id="r" + ids.new_project_id()[1:],
        project_id=project,
        position=int(position),
        url=url,
        branch=branch,
        path=path,
        secret=None if secret is None else tx.secrets.seal(secret),
        created_at=tx.now_ms,
    )
    try:
        async with tx.conn.savepoint():
            return _repository((await tx.execute(row.returning(*_SHOWN))).one())
    except exc.IntegrityError as error:
        if not engine.is_unique_violation(error):
            raise
        raise errors.Conflict(f"cannot add the repository: the project has another at {path}") from error


async def remove(tx: engine.Tx, repository: str) -> Repository:
    """Take one off the list; clones in machines stay.

    Raises:
        errors.NotFound: There is none.
    """
    row = await tx.one(sa.delete(_t).where(_t.c.id == repository).returning(*_SHOWN))
    if row is None:
        raise errors.NotFound(f"cannot find repository {repository}")
    return _repository(row)


async def get(tx: engine.Tx, repository: str) -> Repository:
    """One repository.

    Raises:
        errors.NotFound: There is none.
    """
    row = await tx.one(sa.select(*_SHOWN).where(_t.c.id == repository))
    if row is None:
        raise errors.NotFound(f"cannot find repository {repository}")
    return _repository(row)


async def listed(tx: engine.Tx, project: str) -> list[Repository]:
    """Those of a project, in the order they are cloned."""
    rows = await tx.rows(
        sa.select(*_SHOWN).where(_t.c.project_id == project).order_by(_t.c.position, _t.c.created_at)
    )
    return [_repository(row) for row in rows]


async def secret_of(tx: engine.Tx, repository: str) -> str | None:
    """The secret, for the one who clones and nobody else."""
    sealed = await tx.scalar(sa.select(_t.c.secret).where(_t.c.id == repository))
    return None if sealed is None else tx.secrets.open(bytes(sealed))
