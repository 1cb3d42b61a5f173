"""`paddock logs MACHINE ID`: what a command wrote. The boot log of a machine is `paddock machine logs`."""

from typing import Annotated

import typer

from paddock.client import output_feed
from paddock.client import process as processes
from paddock.client.commands import desk, failures, links, noun, outlet, showing
from paddock.contracts import executions as limits
from paddock.contracts.api import executions as api

app = noun.Noun("What a command in a machine wrote.")


@app.verb("logs")
async def logs(
    at: desk.Desk,
    machine: Annotated[str, typer.Argument(help="The machine's id.")],
    exec_id: Annotated[str, typer.Argument(metavar="ID", help="The command's id, as `paddock ps` shows it.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it has ended.")] = False,
    stdout: Annotated[bool, typer.Option("--stdout", help="Only its standard output.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Only its standard error.")] = False,
    tail_bytes: Annotated[
        int | None,
        typer.Option("--tail", min=0, metavar="BYTES", help="Begin so far before the end of each."),
    ] = None,
) -> None:
    """Print what a command wrote, to where it wrote it: stdout to stdout, stderr to stderr.

    As in: paddock logs --follow m123 7f3c09a1b2d4

    Without --follow, what it wrote up to now: first stdout, then stderr. With --json, how it is and both ends of each.
    """
    process = at.client.machine(machine).exec.get(exec_id)
    if at.is_json:
        if follow:
            await process.wait()
        print((await process.summary()).model_dump_json(by_alias=True))
        return
    asked_for = tuple(name for name, is_it in zip(showing.NAMES, (stdout, stderr), strict=True) if is_it)
    wanted = asked_for or showing.NAMES
    seen = await process.look()
    begin = {name: _begin(seen, name, tail_bytes) for name in showing.NAMES}
    try:
        async with outlet.Outlet() as out:
            if follow:
                process.on_link = links.Notice()
                await showing.show(process, out, begin=begin, wanted=wanted)
            else:
                for name in wanted:
                    await _print(process, out, name, begin[name], _size(seen, name))
    except (BrokenPipeError, outlet.HungUp):
        raise typer.Exit(outlet.BROKEN_PIPE) from None


async def _print(
    process: processes.Process, out: outlet.Outlet, name: output_feed.StreamName, begin: int, end: int
) -> None:
    while begin < end:
        part = await process.read_output(name, begin, min(limits.OUTPUT_BYTES_MAX, end - begin))
        if not part:
            return
        await out.write(name, part)
        begin += len(part)


def _begin(seen: api.Execution, name: output_feed.StreamName, tail_bytes: int | None) -> int:
    kept_from = seen.stdout_from if name == "stdout" else seen.stderr_from
    if tail_bytes is not None:
        return max(kept_from, _size(seen, name) - tail_bytes)
    if kept_from:
        failures.say(f"the first {kept_from} bytes of its {name} are no longer kept")
    return kept_from


def _size(seen: api.Execution, name: output_feed.StreamName) -> int:
    return seen.stdout_bytes if name == "stdout" else seen.stderr_bytes
