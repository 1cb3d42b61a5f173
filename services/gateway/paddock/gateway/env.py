"""`env.*`: variables, written and listed, never read back."""

from paddock.contracts import errors, events, phases
from paddock.contracts.api import env, methods
from paddock.gateway import jsonrpc
from paddock.store import engine, env_vars, machines, projects


class Env:
    def __init__(self, store: engine.Store) -> None:
        self._store = store

    def routes(self) -> tuple[jsonrpc.AnyRoute, ...]:
        return (
            jsonrpc.Route(methods.ENV_SET, self.set),
            jsonrpc.Route(methods.ENV_UNSET, self.unset),
            jsonrpc.Route(methods.ENV_LIST, self.listed),
        )

    async def set(self, params: env.EnvSet, call: jsonrpc.Call) -> env.EnvChanged:
        async with self._store.write(actor=call.caller.id) as tx:
            owner = await _owner(tx, params, for_change=True)
            reached = await env_vars.put(tx, env_vars.Scope(params.scope), owner, params.variables)
        return env.EnvChanged(names=sorted(params.variables), machines=len(reached))

    async def unset(self, params: env.EnvUnset, call: jsonrpc.Call) -> env.EnvChanged:
        async with self._store.write(actor=call.caller.id) as tx:
            owner = await _owner(tx, params, for_change=True)
            removed, reached = await env_vars.remove(tx, env_vars.Scope(params.scope), owner, params.names)
        return env.EnvChanged(names=removed, machines=len(reached))

    async def listed(self, params: env.EnvList, _call: jsonrpc.Call) -> env.EnvVariables:
        async with self._store.read() as tx:
            owner = await _owner(tx, params)
            rows = await env_vars.listed(tx, env_vars.Scope(params.scope), owner)
        return env.EnvVariables(variables=[_shown(row) for row in rows])


async def _owner(tx: engine.Tx, params: env.Scoped, *, for_change: bool = False) -> str:
    """Whose variables they are, known to exist."""
    if params.project_id is not None:
        return (await projects.get(tx, params.project_id)).id
    if params.machine_id is not None:
        machine = await machines.get(tx, params.machine_id)
        if for_change and machine.phase in {phases.Phase.DELETING, phases.Phase.DELETED}:
            raise errors.MachineGone
        return machine.id
    return ""


def _shown(row: env_vars.Variable) -> env.EnvVariable:
    return env.EnvVariable(
        name=row.name,
        scope=env.Scope(row.scope),
        version=row.version,
        updated_at=events.time_text(row.updated_at),
        updated_by=row.updated_by,
    )
