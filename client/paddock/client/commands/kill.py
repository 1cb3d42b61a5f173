"""`paddock kill MACHINE ID`: a signal for a command and all that it started."""

from typing import Annotated

import typer

from paddock.client.commands import desk, noun

app = noun.Noun("Send a signal to a command in a machine; it is asked to end unless told otherwise.")


@app.verb("kill")
async def kill(
    at: desk.Desk,
    machine: Annotated[str, typer.Argument(help="The machine's id.")],
    exec_id: Annotated[str, typer.Argument(metavar="ID", help="The command's id, as `paddock ps` shows it.")],
    name: Annotated[
        str, typer.Option("--signal", "-s", metavar="NAME", help="Such as KILL, INT or HUP.")
    ] = "TERM",
) -> None:
    """Send a signal to a command's whole process group; it is for the command to end by it.

    As in: paddock kill --signal KILL m123 7f3c09a1b2d4

    A command that has ended is told as such, with exit code 73; one that is not known, with 72.
    """
    wanted = name.upper()
    await at.client.machine(machine).exec.get(exec_id).signal(wanted)
    at.done(f"sent SIG{wanted.removeprefix('SIG')} to {exec_id}")
