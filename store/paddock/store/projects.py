"""Projects: a name and the blueprint that every machine of it is made from."""

from typing import Any, Final

import msgspec
import sqlalchemy as sa

from paddock.contracts import errors, events, ids, phases
from paddock.store import engine, outbox, schema

_t = schema.projects


class SetupStep(msgspec.Struct, frozen=True, kw_only=True):
    """A command run in the machine after the clones; no shell unless it names one."""

    name: str
    command: list[str]
    cwd: str = "~"
    timeout_s: float = 120.0


class Probe(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`rpc`: the daemon answers. `exec`: `command` exits with 0."""

    kind: str
    command: list[str] = msgspec.field(default_factory=list)
    cwd: str = "~"
    timeout_s: float = 10.0


class Blueprint(msgspec.Struct, frozen=True, kw_only=True):
    setup_steps: list[SetupStep] = msgspec.field(default_factory=list)
    probes: list[Probe] = msgspec.field(default_factory=list)


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """One row; times are unix milliseconds."""

    id: ids.ProjectId
    name: str
    provider: str
    image: str
    blueprint: Blueprint
    created_at: int
    updated_at: int


_FIELDS: Final = Project.__struct_fields__
_COLUMNS: Final = [_t.c[name] for name in _FIELDS]


def _project(row: sa.Row[Any]) -> Project:
    values = dict(zip(_FIELDS, row, strict=True))
    values["blueprint"] = msgspec.json.decode(values["blueprint"], type=Blueprint)
    return Project(**values)


async def create(
    tx: engine.Tx, *, name: str, provider: str, image: str = "", blueprint: Blueprint | None = None
) -> Project:
    """A new project; `project.created` goes out with it."""
    row = await tx.execute(
        sa.insert(_t)
        .values(
            id=ids.new_project_id(),
            name=name,
            provider=provider,
            image=image,
            blueprint=msgspec.json.encode(blueprint or Blueprint()).decode(),
            created_at=tx.now_ms,
            updated_at=tx.now_ms,
        )
        .returning(*_COLUMNS)
    )
    project = _project(row.one())
    await outbox.add(tx, events.PROJECT_CREATED, project=project.id, data={"name": name})
    return project


async def get(tx: engine.Tx, project: str) -> Project:
    """One project.

    Raises:
        errors.NotFound: There is none, or it was deleted.
    """
    row = await tx.one(sa.select(*_COLUMNS).where(_t.c.id == project, _t.c.deleted_at.is_(None)))
    if row is None:
        raise errors.NotFound(f"cannot find project {project}")
    return _project(row)


async def find(tx: engine.Tx, *, after: tuple[int, str] | None = None, limit: int = 100) -> list[Project]:
    """Projects, newest first; `after` is `(created_at, id)` of the last one of the page before."""
    query = sa.select(*_COLUMNS).where(_t.c.deleted_at.is_(None))
    if after is not None:
        query = query.where(sa.tuple_(_t.c.created_at, _t.c.id) < sa.tuple_(*map(sa.literal, after)))
    return [
        _project(row)
        for row in await tx.rows(query.order_by(_t.c.created_at.desc(), _t.c.id.desc()).limit(limit))
    ]


async def update(
    tx: engine.Tx,
    project: str,
    *,
    name: str | None = None,
    provider: str | None = None,
    image: str | None = None,
    blueprint: Blueprint | None = None,
) -> Project:
    """Change what is given; machines made before keep what they were made from until their next setup.

    Raises:
        errors.NotFound: There is no such project.
    """
    values: dict[str, Any] = {"name": name, "provider": provider, "image": image}
    if blueprint is not None:
        values["blueprint"] = msgspec.json.encode(blueprint).decode()
    changed = {key: value for key, value in values.items() if value is not None}
    row = await tx.one(
        sa.update(_t)
        .where(_t.c.id == project, _t.c.deleted_at.is_(None))
        .values(updated_at=tx.now_ms, **changed)
        .returning(*_COLUMNS)
    )
    if row is None:
        raise errors.NotFound(f"cannot find project {project}")
    after = _project(row)
    await outbox.add(tx, events.PROJECT_UPDATED, project=after.id, data={"changed": sorted(changed)})
    return after


async def delete(tx: engine.Tx, project: str) -> None:
    """Delete a project without machines; its variables and repositories go with it.

    Raises:
        errors.NotFound: There is no such project.
        errors.InUse: It still has machines.
    """
    known = await tx.one(
        sa.select(_t.c.id).where(_t.c.id == project, _t.c.deleted_at.is_(None)).with_for_update()
    )
    if known is None:
        raise errors.NotFound(f"cannot find project {project}")
    machines = schema.machines
    count = await tx.scalar(
        sa.select(sa.func.count())
        .select_from(machines)
        .where(machines.c.project_id == project, machines.c.phase.not_in(sorted(phases.ENDED)))
    )
    if count:
        raise errors.InUse(
            f"cannot delete project {project}: it still has machines ({count}); delete them first",
            data={"machines": count},
        )
    await tx.execute(sa.update(_t).where(_t.c.id == project).values(deleted_at=tx.now_ms))
    await tx.execute(
        sa.delete(schema.env_vars).where(
            schema.env_vars.c.scope == "project", schema.env_vars.c.owner == project
        )
    )
    await tx.execute(sa.delete(schema.repositories).where(schema.repositories.c.project_id == project))
    await outbox.add(tx, events.PROJECT_DELETED, project=ids.ProjectId(project))
