"""`paddock repo`: repositories that every new machine of a project clones."""

import pathlib
import re
from typing import Annotated

import typer

from paddock.client.commands import assignments, desk, noun, views
from paddock.contracts import errors

app = noun.Noun("Repositories that every new machine of a project clones.")

Project = Annotated[str, typer.Option(envvar="PADDOCK_PROJECT", help="The project's id or name.")]


@app.verb("add")
async def add(
    at: desk.Desk,
    remote: Annotated[
        str, typer.Argument(help="https://, ssh://, user@host:path or file:///; no password in it.")
    ],
    project: Project,
    path: Annotated[
        str | None, typer.Argument(help="Below the home directory; its last part unless given.")
    ] = None,
    branch: Annotated[str | None, typer.Option(help="The remote's default unless given.")] = None,
    secret_file: Annotated[
        pathlib.Path | None,
        typer.Option(help="A file with an access token or user:password; - is standard input."),
    ] = None,
) -> None:
    """Add a repository; machines made from now on clone it."""
    secret = None if secret_file is None else assignments.secret_from(secret_file, "the secret")
    found = await at.client.projects.find(project)
    added = await at.client.repositories.add(
        found.id, remote, path or _folder(remote), branch=branch, secret=secret
    )
    at.show(added, views.repository)


@app.verb("remove")
async def remove(at: desk.Desk, repository: Annotated[str, typer.Argument(help="Its id.")]) -> None:
    """Take a repository out of its project; clones in machines stay."""
    await at.client.repositories.remove(repository)
    at.done(f"removed repository {repository}")


@app.verb("list")
async def list_(at: desk.Desk, project: Project) -> None:
    """Show a project's repositories, in the order they are cloned."""
    found = await at.client.projects.find(project)
    at.show(await at.client.repositories.list(found.id), views.repository_list)


def _folder(remote: str) -> str:
    """The folder git itself would choose."""
    name = re.split(r"[/:]", remote.rstrip("/"))[-1].removesuffix(".git")
    if not name:
        raise errors.InvalidParams(f"cannot tell from {remote!r} where the clone goes: give a path")
    return name
