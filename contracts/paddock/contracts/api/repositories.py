"""Repositories that every new machine of a project clones."""

from typing import Annotated

import pydantic

from paddock.contracts import git
from paddock.contracts.api import base

RepositoryId = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9]{1,40}$", description="Its id.")]
Url = Annotated[
    str,
    pydantic.Field(min_length=1, description="https://, http://, ssh://, user@host:path or file:///."),
    pydantic.AfterValidator(git.checked_url),
]
Branch = Annotated[str, pydantic.AfterValidator(git.checked_branch)]
ClonePath = Annotated[
    str,
    pydantic.Field(description="Where it goes, below the home directory."),
    pydantic.AfterValidator(git.checked_path),
]
Secret = Annotated[
    str,
    pydantic.Field(
        min_length=1,
        max_length=8192,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="An access token for a private repository, or `user:password`; kept encrypted.",
    ),
]


class RepositoryAdd(base.Params):
    """Add a repository to a project; machines made from now on clone it."""

    project_id: base.ProjectId
    url: Url
    path: ClonePath
    branch: Annotated[Branch | None, pydantic.Field(description="The remote's default unless given.")] = None
    secret: Secret | None = None


class RepositoryRemove(base.Params):
    """Take a repository out of its project; clones in machines stay."""

    repository_id: RepositoryId


class RepositoryList(base.Params):
    """The repositories of a project, in the order they are cloned."""

    project_id: base.ProjectId


class Repository(base.Result):
    """One repository."""

    id: RepositoryId
    project_id: base.ProjectId
    url: str
    branch: str | None = None
    path: str
    has_secret: bool
    created_at: base.Moment


class Repositories(base.Result):
    """All repositories of a project."""

    repositories: list[Repository]
