"""A machine's way to where it shall be, drawn while it goes: live in a terminal, a line a phase elsewhere."""

import time
from collections.abc import Iterator
from typing import Final

import rich.console
import rich.live
import rich.table
import rich.text

from paddock.client import watch
from paddock.client.commands import desk, views
from paddock.contracts import phases
from paddock.contracts.api import machines

MEANING: Final = {
    phases.Phase.CREATED: "waits for a provisioner",
    phases.Phase.PROVISIONING: "its sandbox is made",
    phases.Phase.BOOTING: "its daemon starts",
    phases.Phase.SETTING_UP: "environment, repositories, setup steps",
    phases.Phase.PROBING: "asked until it answers well",
    phases.Phase.ACTIVE: "ready for work",
    phases.Phase.DELETING: "its sandbox is destroyed",
}
REFRESH_HZ = 10


async def follow(
    at: desk.Desk, machine: machines.Machine, *, since: str, until: frozenset[phases.Phase] = watch.SETTLED
) -> machines.Machine:
    """Draw the machine's phases since a moment until it is in one of `until`; the machine as it then is.

    With `--json` the drawing goes to stderr, so that stdout holds the result only.
    """
    drawn = Drawn(machine, since=since, until=until)
    console = desk.console(is_stderr=at.is_json)
    if console.is_terminal:
        with rich.live.Live(drawn, console=console, refresh_per_second=REFRESH_HZ) as live:
            return await watch.settle(at.client, drawn, until=until, on_change=live.refresh)

    def print_lines() -> None:
        for line in drawn.new_lines():
            console.print(line)

    return await watch.settle(at.client, drawn, until=until, on_change=print_lines)


def failure(machine: machines.Machine) -> str:
    """Why a machine did not become what was waited for, and what to do."""
    if machine.phase is not phases.Phase.FAILED:
        return (
            f"machine {machine.id} is {machine.phase.value}; `paddock machine history {machine.id}` shows why"
        )
    why = views.reason(machine.reason) or "no reason was recorded"
    return (
        f"machine {machine.id} failed: {why.rstrip('.')}; look at `paddock machine logs {machine.id}`, "
        f"then `paddock machine retry {machine.id}`"
    )


class Drawn(watch.Timeline):
    """A timeline to look at, whole and live, or line by line."""

    def __init__(self, machine: machines.Machine, *, since: str, until: frozenset[phases.Phase]) -> None:
        super().__init__(machine, since=since)
        self._until = until
        self._lines_given = 0
        self._seen_at: dict[int, float] = {}

    def __rich__(self) -> rich.console.RenderableType:
        grid = rich.table.Table.grid(padding=(0, 2))
        grid.add_column()
        grid.add_column()
        grid.add_column(justify="right")
        for number, step in enumerate(self.steps()):
            style = views.STYLES.get(step.phase, "yellow" if step.took_ms is None else "")
            grid.add_row(
                rich.text.Text(self._mark(step), style=style),
                rich.text.Text(step.phase.value, style=style),
                self._took(number, step),
                rich.text.Text(self._meaning(step), style="dim"),
            )
        return grid

    def new_lines(self) -> Iterator[str]:
        """A line for each step that ended since the last call, and one for the step that ends it all."""
        steps = self.steps()
        for step in steps[self._lines_given :]:
            if step.took_ms is None and step.phase not in self._until:
                return
            self._lines_given += 1
            took = f"after {self._total()}" if step.took_ms is None else views.duration(step.took_ms)
            yield f"{step.phase.value:<14}{took:>16}"

    def _meaning(self, step: watch.Step) -> str:
        return self.doing if self.doing and step.took_ms is None else MEANING.get(step.phase, "")

    def _mark(self, step: watch.Step) -> str:
        if step.phase is phases.Phase.FAILED:
            return "✗"
        return "…" if step.took_ms is None and step.phase not in self._until else "✓"

    def _took(self, number: int, step: watch.Step) -> str:
        if step.took_ms is not None:
            return views.duration(step.took_ms)
        if step.phase in self._until:
            return f"after {self._total()}"
        # The step's clock is the gateway's; what passes here since we heard of it is what we can measure.
        seen_at = self._seen_at.setdefault(number, time.monotonic())
        return views.duration(int((time.monotonic() - seen_at) * 1000))

    def _total(self) -> str:
        steps = self.steps()
        return views.duration(steps[-1].began_ms - steps[0].began_ms)
