"""`paddock shell MACHINE`: a login shell on this terminal."""

from typing import Annotated, Final

import typer

from paddock.client.commands import assignments, desk, noun, places, starting, terminal

app = noun.Noun("A login shell in a machine, on this terminal.")

SHELL: Final = """
case ${SHELL:-} in */nologin | */false) SHELL= ;; esac
for each in "${SHELL:-}" bash sh; do
  if [ -n "$each" ] && found=$(command -v "$each"); then export SHELL="$found"; exec "$found" -l; fi
done
"""
"""Its own one; in a machine that has none set, bash where it is."""
COMMAND: Final = ("/bin/sh", "-c", SHELL)


@app.verb("shell")
async def shell(
    at: desk.Desk,
    machine: Annotated[str, typer.Argument(help="The machine's id.")],
    cwd: Annotated[str, typer.Option(help="The working directory, from the home directory.")] = "~",
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Or NAME@FILE; on top of the machine's. Repeatable."),
    ] = None,
    user: Annotated[str, typer.Option(help="As this user of the machine: a name or a number.")] = "",
    exec_id: Annotated[
        str | None, typer.Option("--id", help="Your name for it: typed again with it, you are back in it.")
    ] = None,
) -> None:
    """Open a login shell in an active machine; its exit code is ours.

    As in: paddock shell m123

    It runs on when this terminal is closed; `paddock ps` finds it and `paddock attach -i` comes back.
    """
    terminal.demanded("open a shell")
    wanted = starting.Wanted(
        machine, list(COMMAND), places.in_machine(cwd), assignments.read(env or []), user, exec_id
    )
    raise typer.Exit(await starting.run(at, wanted, has_terminal=True))
