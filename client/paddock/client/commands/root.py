"""`paddock` itself: its nouns, each loaded when it is used, and the commands other members bring.

`paddock --help` imports nothing but typer. A member adds a command by an entry point of the group
`paddock.commands`: a typer app, or a function that typer can read.
"""

import importlib
import importlib.metadata
import pathlib
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer
import typer.core

ENTRY_POINTS = "paddock.commands"
NOUNS: Final = {
    "up": "Start everything on this machine: bus, database, every service.",
    "project": "Projects: what belongs together, and how its machines are set up.",
    "machine": "Machines: ask for one, see how it is, read and write its files.",
    "exec": "Run a command in a machine; its output, exit code and Ctrl-C are ours.",
    "shell": "A login shell in a machine, on this terminal.",
    "attach": "Come back to a command that runs in a machine, or ran there.",
    "ps": "The commands of a machine: what runs, and how the others ended.",
    "logs": "What a command in a machine wrote.",
    "kill": "Send a signal to a command in a machine; it is asked to end unless told otherwise.",
    "cp": "Copy files and folders to a machine or from one.",
    "files": "Files in a machine: look at them, move, remove and find them.",
    "port-forward": "Ports of a machine, as if they were on this one.",
    "port-url": "An address of a machine's port that needs no token until it expires.",
    "env": "Environment variables of the platform, a project or a machine.",
    "repo": "Repositories that every new machine of a project clones.",
    "token": "Access tokens for the gateway.",
    "events": "What happens, as it happens.",
}


class Root(typer.core.TyperGroup):
    """Shows the name and the help of its commands without loading them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name in [*NOUNS, *sorted(_brought().keys() - NOUNS.keys())]:
            self.add_command(
                typer.core.TyperCommand(name, help=NOUNS.get(name, "Brought by another member."))
            )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and _loaded(args[0]), rest


def module_name(noun: str) -> str:
    """The module of a noun: `port_forward` of `port-forward`."""
    return noun.replace("-", "_")


def _brought() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def _loaded(name: str) -> Any:
    found: typer.Typer | Callable[..., None]
    if (point := _brought().get(name)) is not None:
        found = point.load()
    else:
        found = importlib.import_module(f"paddock.client.commands.{module_name(name)}").app
    if not isinstance(found, typer.Typer):
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name)(found)
        found = app
    command = typer.main.get_command(found)
    command.name = name
    return command


app = typer.Typer(
    name="paddock", cls=Root, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)


def _version(is_asked: bool) -> None:
    if is_asked:
        print(importlib.metadata.version("paddock-client"))
        raise typer.Exit


@app.callback()
def paddock(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(help="The gateway's address [PADDOCK_URL].")] = None,
    token_file: Annotated[
        pathlib.Path | None,
        typer.Option(help="A file with the access token [PADDOCK_TOKEN_FILE, PADDOCK_TOKEN]."),
    ] = None,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON, as the gateway answers it.")] = False,
    is_version_asked: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A control plane for fleets of agent machines.

    Without --url and a token the gateway of `paddock up` in this folder is asked.
    """
    del is_version_asked
    context.obj = (url, token_file, is_json)
