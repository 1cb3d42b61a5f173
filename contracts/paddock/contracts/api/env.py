"""Environment variables of the platform, a project or a machine: set and unset, never read back."""

import enum
from typing import Annotated, Self

import pydantic

from paddock.contracts.api import base


class Scope(enum.StrEnum):
    """Whose machines get the variable. Machine wins over project, project over platform."""

    PLATFORM = "platform"
    PROJECT = "project"
    MACHINE = "machine"


class Scoped(base.Params):
    """Exactly the id that the scope needs must be there."""

    scope: Scope
    project_id: base.ProjectId | None = None
    machine_id: base.MachineId | None = None

    @pydantic.model_validator(mode="after")
    def _ids_fit_scope(self) -> Self:
        wants_project, wants_machine = self.scope is Scope.PROJECT, self.scope is Scope.MACHINE
        if (self.project_id is not None) != wants_project or (self.machine_id is not None) != wants_machine:
            raise ValueError("scope project needs projectId, scope machine machineId, scope platform neither")
        return self


class EnvSet(Scoped):
    """Set variables; others of the scope stay. Running machines get the new values at once."""

    variables: Annotated[base.Variables, pydantic.Field(min_length=1)]


class EnvUnset(Scoped):
    """Remove variables; a name that is not set is passed over."""

    names: Annotated[list[base.EnvName], pydantic.Field(min_length=1, max_length=512)]


class EnvList(Scoped):
    """Which variables a scope has. Values are never answered."""


class EnvVariable(base.Result):
    """That a variable is set, not what it is."""

    name: str
    scope: Scope
    version: Annotated[int, pydantic.Field(description="Grows with every change of its value.")]
    updated_at: base.Moment
    updated_by: Annotated[str, pydantic.Field(description="The name of the access token that set it.")] = ""


class EnvChanged(base.Result):
    """What a change did."""

    names: Annotated[list[str], pydantic.Field(description="The variables that are different now.")]
    machines: Annotated[int, pydantic.Field(description="How many machines will be told.")]


class EnvVariables(base.Result):
    """The variables of one scope, by name."""

    variables: list[EnvVariable]
