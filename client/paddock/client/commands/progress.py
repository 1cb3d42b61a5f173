"""How far a copy is: a bar with its rate on a terminal, nothing elsewhere."""

import contextlib
from collections.abc import Iterator

import rich.progress

from paddock.client.commands import desk, failures


class Progress:
    """All files of one copy in one bar."""

    def __init__(self, drawn: rich.progress.Progress | None) -> None:
        self.copied_bytes = 0
        self._drawn = drawn
        self._task = drawn.add_task("", total=None, start=False) if drawn is not None else None
        self._total_bytes = 0
        self._done: dict[str, int] = {}

    def expect(self, size_bytes: int) -> None:
        """So many bytes more are to be copied."""
        self._total_bytes += size_bytes

    def step(self, target: str, name: str, done_bytes: int, total_bytes: int) -> None:
        """What the client library says about one file: `target` tells it from the others, `name` is shown."""
        known = self._done.get(target)
        self._done[target] = done_bytes
        self.copied_bytes += done_bytes - (known or 0)
        if self._drawn is None or self._task is None:
            return
        if known is None:
            self._drawn.start_task(self._task)
            if done_bytes and total_bytes > done_bytes:
                shown = f"{failures.printable(name)}: going on at {done_bytes * 100 // total_bytes} %"
                self._drawn.console.print(shown)
        self._drawn.update(
            self._task,
            description=failures.printable(name),
            completed=self.copied_bytes,
            total=max(self._total_bytes, self.copied_bytes) or None,
        )

    def finished(self) -> None:
        """There is no more to come: what was of unknown size has the size it has."""
        if self._drawn is not None and self._task is not None:
            self._drawn.update(self._task, total=self.copied_bytes, completed=self.copied_bytes)


@contextlib.contextmanager
def shown(*, is_wanted: bool = True) -> Iterator[Progress]:
    """Draw it on stderr, which is left for our remarks when stdout gets the file."""
    console = desk.console(is_stderr=True)
    if not is_wanted or not console.is_terminal:
        yield Progress(None)
        return
    columns = (
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(binary_units=True),
        rich.progress.TransferSpeedColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console) as drawn:
        yield Progress(drawn)
