"""`repository.*`: what every machine of a project clones."""

from paddock.contracts import events
from paddock.contracts.api import base, methods, repositories
from paddock.gateway import jsonrpc
from paddock.store import engine, projects
from paddock.store import repositories as stored


class Repositories:
    def __init__(self, store: engine.Store) -> None:
        self._store = store

    def routes(self) -> tuple[jsonrpc.AnyRoute, ...]:
        return (
            jsonrpc.Route(methods.REPOSITORY_ADD, self.add),
            jsonrpc.Route(methods.REPOSITORY_REMOVE, self.remove),
            jsonrpc.Route(methods.REPOSITORY_LIST, self.listed),
        )

    async def add(self, params: repositories.RepositoryAdd, call: jsonrpc.Call) -> repositories.Repository:
        async with self._store.write(actor=call.caller.id) as tx:
            project = await projects.get(tx, params.project_id)
            made = await stored.add(
                tx,
                project=project.id,
                url=params.url,
                path=params.path,
                branch=params.branch or "",
                secret=params.secret,
            )
        return _shown(made)

    async def remove(self, params: repositories.RepositoryRemove, call: jsonrpc.Call) -> base.Done:
        async with self._store.write(actor=call.caller.id) as tx:
            await stored.remove(tx, params.repository_id)
        return base.Done()

    async def listed(
        self, params: repositories.RepositoryList, _call: jsonrpc.Call
    ) -> repositories.Repositories:
        async with self._store.read() as tx:
            project = await projects.get(tx, params.project_id)
            rows = await stored.listed(tx, project.id)
        return repositories.Repositories(repositories=[_shown(row) for row in rows])


def _shown(row: stored.Repository) -> repositories.Repository:
    return repositories.Repository(
        id=row.id,
        project_id=row.project_id,
        url=row.url,
        branch=row.branch or None,
        path=row.path,
        has_secret=row.has_secret,
        created_at=events.time_text(row.created_at),
    )
