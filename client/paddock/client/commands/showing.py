"""Output of a command on its way to ours, as it comes, over the gaps that a slow reader brings about."""

from collections.abc import Callable, Mapping
from typing import Final

from paddock.client import output_feed
from paddock.client import process as processes
from paddock.client.commands import failures, outlet
from paddock.contracts import errors
from paddock.contracts.api import executions as api

NAMES: Final[tuple[output_feed.StreamName, ...]] = ("stdout", "stderr")


async def show(
    process: processes.Process,
    out: outlet.Outlet,
    *,
    begin: Mapping[output_feed.StreamName, int] | None = None,
    wanted: tuple[output_feed.StreamName, ...] = NAMES,
    say: Callable[[str], None] = failures.say,
) -> api.Execution:
    """Write what a command writes until its end; how it ended.

    Args:
        process: The command.
        out: Where to.
        begin: Offsets; where an attach begins by itself when None.
        wanted: Which of its streams.
        say: Told how much was left out because it is no longer kept: the command wrote faster than we were read.

    Raises:
        BrokenPipeError: Nobody reads ours any more.
        outlet.HungUp: Our terminal is gone.
        errors.Fault: It cannot be followed.
    """
    at: Mapping[output_feed.StreamName, int] = begin or {}
    while True:
        feed = process.output(stdout_offset=at.get("stdout"), stderr_offset=at.get("stderr"))
        try:
            async with feed:
                async for piece in feed:
                    if piece.stream in wanted:
                        await out.write(piece.stream, piece.data)
        except errors.OutputLimit:
            at = await _behind_gap(process, feed, wanted, say)
        else:
            return feed.execution or await process.wait()


async def _behind_gap(
    process: processes.Process,
    feed: output_feed.OutputFeed,
    wanted: tuple[output_feed.StreamName, ...],
    say: Callable[[str], None],
) -> dict[output_feed.StreamName, int]:
    """Where to go on: at the first bytes still kept."""
    seen = await process.look()
    first: dict[output_feed.StreamName, int] = {"stdout": seen.stdout_from, "stderr": seen.stderr_from}
    at = {name: max(feed.offsets[name] or 0, kept_from) for name, kept_from in first.items()}
    for name in wanted:
        if missing_bytes := at[name] - (feed.offsets[name] or 0):
            say(f"{missing_bytes} bytes of its {name} are left out: they are no longer kept")
    return at
