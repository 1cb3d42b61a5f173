"""`project.*`: projects and their blueprints."""

import shlex
from collections.abc import Sequence

from paddock.contracts import errors, events
from paddock.contracts.api import base, methods, projects
from paddock.gateway import jsonrpc, pages
from paddock.store import engine
from paddock.store import projects as stored

STEP_NAME_CHARS_MAX = 100


class Projects:
    """Projects, with the providers that machines can be asked of."""

    def __init__(self, store: engine.Store, *, providers: Sequence[str]) -> None:
        """Make one.

        Args:
            store: Where they are kept.
            providers: Those a project may name; the first is used when it names none.
        """
        self._store = store
        self._providers = tuple(providers)

    def routes(self) -> tuple[jsonrpc.AnyRoute, ...]:
        return (
            jsonrpc.Route(methods.PROJECT_CREATE, self.create),
            jsonrpc.Route(methods.PROJECT_GET, self.get),
            jsonrpc.Route(methods.PROJECT_UPDATE, self.update),
            jsonrpc.Route(methods.PROJECT_LIST, self.listed),
            jsonrpc.Route(methods.PROJECT_DELETE, self.delete),
        )

    async def create(self, params: projects.ProjectCreate, call: jsonrpc.Call) -> projects.Project:
        provider = self._known_provider(params.provider or self._providers[0])
        async with self._store.write(actor=call.caller.id) as tx:
            made = await stored.create(
                tx,
                name=params.name,
                provider=provider,
                image=params.image,
                blueprint=_kept(params.blueprint),
            )
        return shown(made)

    async def get(self, params: projects.ProjectGet, _call: jsonrpc.Call) -> projects.Project:
        async with self._store.read() as tx:
            return shown(await stored.get(tx, params.project_id))

    async def update(self, params: projects.ProjectUpdate, call: jsonrpc.Call) -> projects.Project:
        provider = None if params.provider is None else self._known_provider(params.provider)
        async with self._store.write(actor=call.caller.id) as tx:
            changed = await stored.update(
                tx,
                params.project_id,
                name=params.name,
                provider=provider,
                image=params.image,
                blueprint=None if params.blueprint is None else _kept(params.blueprint),
            )
        return shown(changed)

    async def listed(self, params: projects.ProjectList, _call: jsonrpc.Call) -> projects.ProjectPage:
        after = pages.after(params.cursor)
        async with self._store.read() as tx:
            rows = await stored.find(tx, after=after, limit=params.limit + 1)
        page, next_cursor = pages.cut(rows, params.limit)
        return projects.ProjectPage(projects=[shown(project) for project in page], next_cursor=next_cursor)

    async def delete(self, params: projects.ProjectDelete, call: jsonrpc.Call) -> base.Done:
        async with self._store.write(actor=call.caller.id) as tx:
            await stored.delete(tx, params.project_id)
        return base.Done()

    def _known_provider(self, name: str) -> str:
        if name not in self._providers:
            raise errors.UnknownProvider(
                f"cannot use provider {name}: there is none of this name here",
                data={"providers": list(self._providers)},
            )
        return name


def shown(project: stored.Project) -> projects.Project:
    """A project as people see it."""
    steps = [
        projects.SetupStep(name=step.name, command=step.command, cwd=step.cwd, timeout_s=step.timeout_s)
        for step in project.blueprint.setup_steps
    ]
    return projects.Project(
        id=project.id,
        name=project.name,
        provider=project.provider,
        image=project.image,
        blueprint=projects.Blueprint(
            setup_steps=steps, probes=[_probe(one) for one in project.blueprint.probes]
        ),
        created_at=events.time_text(project.created_at),
        updated_at=events.time_text(project.updated_at),
    )


def _probe(probe: stored.Probe) -> projects.Probe:
    if probe.kind == "exec":
        return projects.ExecProbe(
            kind="exec", command=probe.command, cwd=probe.cwd, timeout_s=probe.timeout_s
        )
    return projects.RpcProbe(kind="rpc", timeout_s=probe.timeout_s)


def _kept(blueprint: projects.Blueprint) -> stored.Blueprint:
    steps = [
        stored.SetupStep(
            name=step.name or shlex.join(step.command)[:STEP_NAME_CHARS_MAX],
            command=step.command,
            cwd=step.cwd,
            timeout_s=step.timeout_s,
        )
        for step in blueprint.setup_steps
    ]
    return stored.Blueprint(setup_steps=steps, probes=[_kept_probe(one) for one in blueprint.probes])


def _kept_probe(probe: projects.Probe) -> stored.Probe:
    if isinstance(probe, projects.ExecProbe):
        return stored.Probe(kind="exec", command=probe.command, cwd=probe.cwd, timeout_s=probe.timeout_s)
    return stored.Probe(kind="rpc", timeout_s=probe.timeout_s)
