"""Projects: what belongs together, and the blueprint its machines are made by."""

from typing import Annotated, Literal

import pydantic

from paddock.contracts import phases
from paddock.contracts.api import base

SETUP_TIMEOUT_S = 120.0
SETUP_TIMEOUT_MAX_S = phases.ATTEMPT_LIMIT_S[phases.Stage.SETUP]
"""All steps together have this long."""
PROBE_TIMEOUT_S = 10.0
PROBE_TIMEOUT_MAX_S = 25.0

Provider = Annotated[
    str,
    pydantic.Field(
        pattern=r"^[a-z][a-z0-9_-]{0,39}$", description="Who makes sandboxes, such as bubblewrap."
    ),
]
Cwd = Annotated[
    str,
    pydantic.Field(
        min_length=1, max_length=4096, pattern=base.NO_NUL, description="Where it runs; ~ is the home."
    ),
]
Image = Annotated[
    str,
    pydantic.Field(max_length=400, pattern=r"^[^\x00-\x20\x7f]*$", description="The image or snapshot."),
]


class SetupStep(base.Params):
    """A command run once in each new machine, after its repositories are cloned, in the order given."""

    command: base.Command
    name: Annotated[base.Label | None, pydantic.Field(description="The command unless given.")] = None
    cwd: Cwd = "~"
    timeout_s: Annotated[
        float, pydantic.Field(gt=0, le=SETUP_TIMEOUT_MAX_S, description="Seconds; killed whole after them.")
    ] = SETUP_TIMEOUT_S


class RpcProbe(base.Params):
    """The daemon answers a ping."""

    kind: Literal["rpc"]
    timeout_s: Annotated[float, pydantic.Field(gt=0, le=PROBE_TIMEOUT_MAX_S)] = PROBE_TIMEOUT_S


class ExecProbe(base.Params):
    """A command in the machine ends with exit code 0."""

    kind: Literal["exec"]
    command: base.Command
    cwd: Cwd = "~"
    timeout_s: Annotated[float, pydantic.Field(gt=0, le=PROBE_TIMEOUT_MAX_S)] = PROBE_TIMEOUT_S


Probe = Annotated[RpcProbe | ExecProbe, pydantic.Field(discriminator="kind")]


class Blueprint(base.Params):
    """How a machine of the project is set up, and how we know that it works."""

    setup_steps: Annotated[list[SetupStep], pydantic.Field(max_length=64)] = pydantic.Field(
        default_factory=list
    )
    probes: Annotated[
        list[Probe],
        pydantic.Field(max_length=16, description="All must succeed; a ping when empty."),
    ] = pydantic.Field(default_factory=list)


class ProjectCreate(base.Params):
    """Make a project."""

    name: base.Label
    provider: Annotated[Provider | None, pydantic.Field(description="The default unless given.")] = None
    image: Image = ""
    blueprint: Blueprint = Blueprint()


class ProjectGet(base.Params):
    """One project."""

    project_id: base.ProjectId


class ProjectUpdate(base.Params):
    """Change what is given. Machines that exist keep what they were made with until they are set up again."""

    project_id: base.ProjectId
    name: base.Label | None = None
    provider: Provider | None = None
    image: Image | None = None
    blueprint: Annotated[Blueprint | None, pydantic.Field(description="Replaces the whole blueprint.")] = None


class ProjectDelete(base.Params):
    """Delete a project that has no machines left."""

    project_id: base.ProjectId


class ProjectList(base.Params):
    """Projects, newest first."""

    cursor: base.PageCursor | None = None
    limit: base.PageLimit = base.PAGE_SIZE


class Project(base.Result):
    """One project."""

    id: base.ProjectId
    name: str
    provider: str
    image: str
    blueprint: Blueprint
    created_at: base.Moment
    updated_at: base.Moment


class ProjectPage(base.Result):
    """Some projects; `nextCursor` is null on the last page."""

    projects: list[Project]
    next_cursor: str | None = None
