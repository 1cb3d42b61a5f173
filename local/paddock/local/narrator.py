"""What the demo and `paddock up` say on a terminal: steps, the timeline of events, results, the history as a table."""

import datetime
from typing import Final

import rich.console
import rich.table
from rich import markup

from paddock.contracts import events
from paddock.contracts.api import machines

MEANING: Final = {
    events.MACHINE_CREATED: "asked for",
    events.MACHINE_PROVISIONING: "the provisioner took it up",
    events.MACHINE_PROVISIONED: "its sandbox is there, its daemon boots",
    events.MACHINE_DAEMON_STATUS_REPORTED: "its daemon says ready, setup begins",
    events.MACHINE_SETUP_STEP_STARTED: "pushing",
    events.MACHINE_SETUP_STEP_FINISHED: "pushed",
    events.MACHINE_SETUP_PUSHED: "environment, repository and steps are pushed, probing begins",
    events.MACHINE_PROBE_SUCCEEDED: "it answers well",
    events.MACHINE_PROBE_FAILED: "it does not answer well yet",
    events.MACHINE_ACTIVATED: "it works",
    events.MACHINE_ENV_CHANGED: "its environment is to change",
    events.MACHINE_ENV_PUSHED: "the new environment is applied",
    events.MACHINE_CONNECTION_CHANGED: "its connection changed",
    events.MACHINE_HEALTH_CHANGED: "its health changed",
    events.MACHINE_SANDBOX_VANISHED: "its sandbox is gone, a new one follows",
    events.MACHINE_FAILED: "it failed",
    events.MACHINE_DELETE_REQUESTED: "to be deleted",
    events.MACHINE_DELETED: "nothing of it is left",
}
COLOUR: Final = {events.MACHINE_ACTIVATED: "bold green", events.MACHINE_FAILED: "bold red"}


class Narrator:
    """Says it, in colour where the terminal has some."""

    def __init__(self, console: rich.console.Console | None = None) -> None:
        self._console = console or rich.console.Console(highlight=False)
        self._since: datetime.datetime | None = None

    def title(self, text: str) -> None:
        self._console.print(f"\n[bold]{markup.escape(text)}[/bold]", soft_wrap=True)

    def fact(self, name: str, text: str) -> None:
        self._console.print(f"  [cyan]{markup.escape(name):<12}[/cyan]{markup.escape(text)}", soft_wrap=True)

    def notice(self, text: str) -> None:
        self._console.print(f"  [yellow]{markup.escape(text)}[/yellow]", soft_wrap=True)

    def error(self, text: str) -> None:
        self._console.print(f"[bold red]{markup.escape(text)}[/bold red]", soft_wrap=True)

    def event(self, event: events.Event) -> None:
        """One line of the timeline; the time is since the first event shown."""
        at = datetime.datetime.fromisoformat(event.time)
        self._since = self._since or at
        colour = COLOUR.get(event.type, "cyan")
        self._console.print(
            f"  {(at - self._since).total_seconds():8.3f} s  [{colour}]{event.type:<31}[/{colour}]"
            f"[dim]{MEANING.get(event.type, '')}{markup.escape(_title(event))}[/dim]",
            soft_wrap=True,
        )

    def command(self, command: list[str], result: machines.ExecResult) -> None:
        """A command that ran in a machine and what it said."""
        self._console.print(
            f"  [dim]$[/dim] {markup.escape(' '.join(command))}  [dim]({result.took_ms} ms)[/dim]",
            soft_wrap=True,
        )
        for line in (result.stdout + result.stderr).rstrip("\n").splitlines():
            self._console.print(f"    {markup.escape(line)}", soft_wrap=True)

    def history(self, history: machines.History) -> None:
        """The phases a machine went through, and the runs of its stages."""
        moves = rich.table.Table("phase entered", "after", "by", box=None, padding=(0, 2), header_style="dim")
        for move in history.moves:
            moves.add_row(move.phase, _milliseconds(move.after_ms), move.actor)
        self._console.print(moves)
        runs = rich.table.Table(
            "stage", "took", "outcome", "by", box=None, padding=(0, 2), header_style="dim"
        )
        for run in history.runs:
            runs.add_row(run.stage, _milliseconds(run.took_ms), run.outcome or "running", run.owner)
        self._console.print()
        self._console.print(runs)


def _milliseconds(length: int | None) -> str:
    return "" if length is None else f"{length:,} ms"


def _title(event: events.Event) -> str:
    """What a step of the setup is called, or what a connection is now."""
    title = event.data.get("title") or event.data.get("connection")
    return f": {title}" if title else ""
