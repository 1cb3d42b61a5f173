"""`paddock ps MACHINE`: the commands of a machine, running and ended."""

from typing import Annotated, Final

import typer

from paddock.client.commands import desk, noun, shell, views
from paddock.contracts.api import executions

app = noun.Noun("The commands of a machine: what runs, and how the others ended.")

TITLES: Final[dict[tuple[str, ...], str]] = {shell.COMMAND: "(login shell)"}
"""Of commands whose words say less to people."""


@app.verb("ps")
async def ps(
    at: desk.Desk,
    machine: Annotated[str, typer.Argument(help="The machine's id.")],
    every: Annotated[
        bool, typer.Option("--all", "-a", help="Those that have ended, too; they are kept for a day.")
    ] = False,
) -> None:
    """Show the commands that run in a machine, newest first.

    As in: paddock ps --all m123
    """
    found = executions.Executions(
        executions=await at.client.machine(machine).exec.list(running_only=not every)
    )
    # By the gateway's clock: ours may be anywhere.
    is_asked = not at.is_json and any(one.ended_at is None for one in found.executions)
    now_ms = (await at.client.system.info()).now_ms if is_asked else None
    at.show(found, lambda shown: views.execution_list(shown, now_ms, TITLES))
