"""What one machine should hold, read from the store as it is now.

The machine's desired version is read before its variables: a change in between makes what is pushed newer than the
version it is recorded under, never older, and the next look finds nothing left to write.
"""

import dataclasses
from collections.abc import Sequence

from paddock.contracts import ids
from paddock.setup_pusher import environment, repositories, steps
from paddock.store import engine, env_vars, machines, projects, sandboxes
from paddock.store import repositories as stored


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """A setup, the environment version it carries, and the boot of the daemon it is for."""

    setup: steps.Setup
    env_version: int
    boot: str


class Planner:
    """Reads plans; holds what is the same for every machine."""

    def __init__(
        self,
        store: engine.Store,
        network: environment.Network,
        protocols: Sequence[str] = repositories.PROTOCOLS,
    ) -> None:
        self._store = store
        self._network = network
        self._protocols = tuple(protocols)

    async def setup(self, machine: ids.MachineId) -> Wanted:
        """Everything the machine should hold.

        Raises:
            errors.NotFound: The machine or its project is gone.
            errors.StoreDown: The database does not answer.
        """
        async with self._store.read() as tx:
            wanted = await self._environment(tx, machine)
            project = await projects.get(tx, wanted.row.project_id)
            clones = [
                repositories.Repository(
                    url=one.url,
                    path=one.path,
                    branch=one.branch,
                    secret=await stored.secret_of(tx, one.id) if one.has_secret else None,
                )
                for one in await stored.listed(tx, project.id)
            ]
        commands = [
            steps.ProjectStep(name=one.name, argv=tuple(one.command), cwd=one.cwd, timeout_s=one.timeout_s)
            for one in project.blueprint.setup_steps
        ]
        secrets = [*wanted.secrets, *(secret for one in clones for secret in one.secrets)]
        setup = steps.Setup(wanted.environment, clones, commands, self._protocols, secrets)
        return Wanted(setup, wanted.row.env_desired, wanted.boot)

    async def environment(self, machine: ids.MachineId) -> Wanted:
        """Only the environment: a setup without steps."""
        async with self._store.read() as tx:
            wanted = await self._environment(tx, machine)
        setup = steps.Setup(wanted.environment, secrets=wanted.secrets)
        return Wanted(setup, wanted.row.env_desired, wanted.boot)

    async def _environment(self, tx: engine.Tx, machine: ids.MachineId) -> "_Environment":
        row = await machines.get(tx, machine)
        scopes = await env_vars.opened(tx, row)
        merged = environment.build(
            machine_id=row.id,
            project_id=row.project_id,
            network=self._network,
            platform=scopes[env_vars.Scope.PLATFORM],
            project=scopes[env_vars.Scope.PROJECT],
            machine=scopes[env_vars.Scope.MACHINE],
        )
        values = [value for scope in scopes.values() for value in scope.values()]
        return _Environment(row, await boot_of(tx, row), merged, values)


async def boot_of(tx: engine.Tx, machine: machines.Machine) -> str:
    """The boot that said ready last in the machine's sandbox."""
    sandbox = await sandboxes.get(tx, machine.id, machine.generation)
    return (sandbox.ready_boot if sandbox is not None else None) or ""


@dataclasses.dataclass(frozen=True, slots=True)
class _Environment:
    row: machines.Machine
    boot: str
    environment: environment.Environment
    secrets: list[str] = dataclasses.field(repr=False)
