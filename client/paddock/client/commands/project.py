"""`paddock project`: what belongs together, and how its machines are set up."""

import pathlib
import shlex
import sys
from typing import Annotated

import pydantic
import typer

from paddock.client import transport
from paddock.client.commands import desk, noun, views
from paddock.contracts import errors
from paddock.contracts.api import projects

app = noun.Noun("Projects: what belongs together, and how its machines are set up.")

Project = Annotated[str, typer.Argument(help="The project's id, or its name where only one has it.")]
Provider = Annotated[str | None, typer.Option(help="Who makes sandboxes, such as bubblewrap.")]
Image = Annotated[str | None, typer.Option(help="The image or snapshot, for providers that have them.")]
Steps = Annotated[
    list[str] | None,
    typer.Option(
        "--setup",
        metavar="COMMAND",
        help="A command run once in each new machine, without a shell: sh -c '…' is one. Repeatable.",
    ),
]
Probes = Annotated[
    list[str] | None,
    typer.Option(
        "--probe",
        metavar="COMMAND",
        help="A command, without a shell, that must end with 0 before a machine is active. Repeatable.",
    ),
]
BlueprintFile = Annotated[
    pathlib.Path | None,
    typer.Option("--blueprint", help="JSON with setupSteps and probes; - is standard input."),
]


@app.verb("create")
async def create(
    at: desk.Desk,
    name: Annotated[str, typer.Argument(help="A name for people.")],
    provider: Provider = None,
    image: Image = None,
    setup: Steps = None,
    probe: Probes = None,
    blueprint: BlueprintFile = None,
) -> None:
    """Make a project."""
    made = await at.client.projects.create(
        name, provider=provider, image=image or "", blueprint=_blueprint(blueprint, setup, probe)
    )
    at.show(made, views.project)


@app.verb("get")
async def get(at: desk.Desk, project: Project) -> None:
    """Show one project."""
    at.show(await at.client.projects.find(project), views.project)


@app.verb("list")
async def list_(at: desk.Desk) -> None:
    """Show all projects, newest first."""
    found = [one async for one in at.client.projects.each()]
    at.show(projects.ProjectPage(projects=found), views.project_list)


@app.verb("update")
async def update(
    at: desk.Desk,
    project: Project,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    provider: Provider = None,
    image: Image = None,
    setup: Steps = None,
    probe: Probes = None,
    blueprint: BlueprintFile = None,
) -> None:
    """Change what is given; steps and probes replace all that were there."""
    found = await at.client.projects.find(project)
    changed = await at.client.projects.update(
        found.id,
        name=name,
        provider=provider,
        image=image,
        blueprint=_blueprint(blueprint, setup, probe),
    )
    at.show(changed, views.project)


@app.verb("delete")
async def delete(at: desk.Desk, project: Project) -> None:
    """Delete a project that has no machines left."""
    found = await at.client.projects.find(project)
    await at.client.projects.delete(found.id)
    at.done(f"deleted project {found.id} ({found.name})")


def _blueprint(
    path: pathlib.Path | None, steps: list[str] | None, probes: list[str] | None
) -> projects.Blueprint | None:
    if path is not None:
        if steps or probes:
            raise errors.InvalidParams(
                "cannot use --blueprint together with --setup or --probe: give one of them"
            )
        return _read(path)
    if not steps and not probes:
        return None
    with transport.checked():
        return projects.Blueprint(
            setup_steps=[projects.SetupStep(command=_words(step)) for step in steps or []],
            probes=[projects.ExecProbe(kind="exec", command=_words(probe)) for probe in probes or []],
        )


def _read(path: pathlib.Path) -> projects.Blueprint:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        return projects.Blueprint.model_validate_json(text)
    except OSError as error:
        raise errors.InvalidParams(f"cannot read the blueprint {path}: {error.strerror}") from error
    except pydantic.ValidationError as error:
        raise errors.InvalidParams(f"cannot use the blueprint {path}: {transport.complaint(error)}") from None
    except UnicodeDecodeError as error:
        raise errors.InvalidParams(f"cannot read the blueprint {path}: it is no UTF-8 text") from error


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise errors.InvalidParams(f"cannot read the command {command!r}: {error}") from error
