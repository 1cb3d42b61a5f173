"""Environment variables of the platform, a project or a machine: set and unset, never read back."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from paddock.client import transport
from paddock.contracts.api import env, methods


@dataclasses.dataclass(frozen=True, slots=True)
class Whose:
    """Whose machines get a variable; made by `project`, `machine` or taken as `PLATFORM`."""

    scope: env.Scope
    project_id: str | None = None
    machine_id: str | None = None


PLATFORM: Final = Whose(env.Scope.PLATFORM)


def project(project_id: str) -> Whose:
    return Whose(env.Scope.PROJECT, project_id=project_id)


def machine(machine_id: str) -> Whose:
    return Whose(env.Scope.MACHINE, machine_id=machine_id)


class Env:
    def __init__(self, link: transport.Transport) -> None:
        self._link = link

    async def set(self, whose: Whose, variables: Mapping[str, str]) -> env.EnvChanged:
        """Set variables; others stay, and running machines get the new values at once."""
        with transport.checked():
            asked = env.EnvSet(
                scope=whose.scope,
                project_id=whose.project_id,
                machine_id=whose.machine_id,
                variables=dict(variables),
            )
        return await self._link.call(methods.ENV_SET, asked)

    async def unset(self, whose: Whose, names: Sequence[str]) -> env.EnvChanged:
        """Remove variables; a name that is not set is passed over."""
        with transport.checked():
            asked = env.EnvUnset(
                scope=whose.scope, project_id=whose.project_id, machine_id=whose.machine_id, names=list(names)
            )
        return await self._link.call(methods.ENV_UNSET, asked)

    async def list(self, whose: Whose) -> env.EnvVariables:
        """Which variables there are; their values are never answered."""
        with transport.checked():
            asked = env.EnvList(scope=whose.scope, project_id=whose.project_id, machine_id=whose.machine_id)
        return await self._link.call(methods.ENV_LIST, asked)
