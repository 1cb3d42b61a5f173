"""`paddock env`: variables of the platform, a project or a machine. Their values are never shown."""

from typing import Annotated

import typer

from paddock.client import env as whose
from paddock.client.commands import assignments, desk, noun, views
from paddock.contracts import errors

app = noun.Noun("Environment variables of the platform, a project or a machine.")

Project = Annotated[str | None, typer.Option(help="For all machines of this project: id or name.")]
Machine = Annotated[str | None, typer.Option(help="For this machine only.")]
Platform = Annotated[bool, typer.Option("--platform", help="For every machine of every project.")]


@app.verb("set")
async def set_(
    at: desk.Desk,
    variables: Annotated[
        list[str] | None,
        typer.Argument(help="NAME=VALUE, or NAME@FILE to keep a secret out of the argument list."),
    ] = None,
    stdin: Annotated[
        str | None, typer.Option(metavar="NAME", help="The value of NAME comes on standard input.")
    ] = None,
    project: Project = None,
    machine: Machine = None,
    platform: Platform = False,
) -> None:
    """Set variables; running machines get the new values at once."""
    given = assignments.read(variables or [], stdin_name=stdin)
    if not given:
        raise errors.InvalidParams("cannot set nothing: give NAME=VALUE, NAME@FILE or --stdin NAME")
    changed = await at.client.env.set(await _whose(at, project, machine, platform), given)
    at.show(changed, views.variables_changed)


@app.verb("unset")
async def unset(
    at: desk.Desk,
    names: Annotated[list[str], typer.Argument(help="Names that are not set are passed over.")],
    project: Project = None,
    machine: Machine = None,
    platform: Platform = False,
) -> None:
    """Remove variables; running machines lose them at once."""
    changed = await at.client.env.unset(await _whose(at, project, machine, platform), names)
    at.show(changed, views.variables_changed)


@app.verb("list")
async def list_(
    at: desk.Desk, project: Project = None, machine: Machine = None, platform: Platform = False
) -> None:
    """Show which variables there are, and when they changed; never their values."""
    at.show(await at.client.env.list(await _whose(at, project, machine, platform)), views.variables)


async def _whose(at: desk.Desk, project: str | None, machine: str | None, platform: bool) -> whose.Whose:
    match project, machine, platform:
        case str(), None, False:
            return whose.project((await at.client.projects.find(project)).id)
        case None, str(), False:
            return whose.machine(machine)
        case None, None, True:
            return whose.PLATFORM
        case _:
            raise errors.InvalidParams(
                "cannot tell whose variables are meant: give one of --project, --machine and --platform"
            )
