"""`paddock attach MACHINE ID`: back to a command, running or ended."""

from typing import Annotated

import typer

from paddock.client.commands import desk, foreground, noun, terminal
from paddock.contracts import errors

app = noun.Noun("Come back to a command that runs in a machine, or ran there.")


@app.verb("attach")
async def attach(
    at: desk.Desk,
    machine: Annotated[str, typer.Argument(help="The machine's id.")],
    exec_id: Annotated[str, typer.Argument(metavar="ID", help="The command's id, as `paddock ps` shows it.")],
    stdin: Annotated[
        bool,
        typer.Option(
            "--stdin", "-i", help="Take it over: our standard input and Ctrl-C, or its terminal, are its."
        ),
    ] = False,
) -> None:
    """Show all of a command's output that is kept, then follow it, and end as it ends.

    As in: paddock attach -i m123 7f3c09a1b2d4

    Without -i we look on: Ctrl-C leaves it running. Of a terminal the last MiB is shown.
    """
    if at.is_json:
        raise errors.InvalidParams("cannot print JSON while following: use `paddock logs --json`")
    process = at.client.machine(machine).exec.get(exec_id)
    seen = await process.look()
    is_taken_over = stdin and seen.state == "running"
    if is_taken_over and seen.pty:
        terminal.demanded("take its terminal over")
    manner = foreground.Manner(
        takes_stdin=is_taken_over, has_terminal=is_taken_over and seen.pty, is_ours=is_taken_over
    )
    raise typer.Exit(await foreground.follow(process, manner))
