"""`paddock machine`: ask for one, see how it is, read and write its files."""

import asyncio
import pathlib
import sys
from typing import Annotated

import typer

from paddock.client import watch
from paddock.client.commands import assignments, desk, failures, modes, noun, timeline, views
from paddock.contracts import errors, phases
from paddock.contracts.api import machines

app = noun.Noun("Machines: ask for one, see how it is, read and write its files.")

Machine = Annotated[str, typer.Argument(help="The machine's id.")]
RemotePath = Annotated[str, typer.Argument(help="In the machine: absolute, or under ~.")]
Wait = Annotated[bool, typer.Option("--wait", help="Draw its phases until it settles; fail when it fails.")]
TimeoutS = Annotated[
    float | None, typer.Option("--timeout-s", min=0.1, help="With --wait: seconds to wait at most.")
]


@app.verb("create")
async def create(
    at: desk.Desk,
    project: Annotated[str, typer.Option(envvar="PADDOCK_PROJECT", help="The project's id or name.")],
    name: Annotated[str | None, typer.Option(help="For people; the id unless given.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="For finding it. Repeatable.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Its own variable, or NAME@FILE. Repeatable."),
    ] = None,
    client_token: Annotated[
        str | None, typer.Option(help="The same token and request give the same machine.")
    ] = None,
    wait: Wait = False,
    timeout_s: TimeoutS = None,
) -> None:
    """Ask for a machine."""
    variables = assignments.read(env or [])
    labels = assignments.pairs(label or [], "label")
    found = await at.client.projects.find(project)
    made = await at.client.machines.create(
        found.id, name=name, labels=labels, env=variables, client_token=client_token
    )
    if wait:
        failures.say(f"waiting for machine {made.id}")
        made = await _settled(at, made, since=made.created_at, timeout_s=timeout_s)
    _show_settled(at, made, is_good=not wait or made.phase is phases.Phase.ACTIVE)


@app.verb("get")
async def get(at: desk.Desk, machine: Machine) -> None:
    """Show how one machine is."""
    at.show(await at.client.machines.get(machine), views.machine)


@app.verb("list")
async def list_(
    at: desk.Desk,
    project: Annotated[str | None, typer.Option(help="Only of this project: id or name.")] = None,
    phase: Annotated[
        list[phases.Phase] | None, typer.Option(help="Only in this phase; deleted ones only so. Repeatable.")
    ] = None,
) -> None:
    """Show machines, newest first."""
    project_id = None if project is None else (await at.client.projects.find(project)).id
    found = [one async for one in at.client.machines.each(project_id=project_id, among=phase)]
    at.show(machines.MachinePage(machines=found), views.machine_list)


@app.verb("delete")
async def delete(at: desk.Desk, machine: Machine, wait: Wait = False, timeout_s: TimeoutS = None) -> None:
    """Delete a machine, from every phase."""
    deleted = await at.client.machines.delete(machine)
    if wait:
        goal = frozenset({phases.Phase.DELETED})
        deleted = await _settled(at, deleted, since=deleted.phase_since, timeout_s=timeout_s, until=goal)
    at.show(deleted, views.machine)


@app.verb("retry")
async def retry(at: desk.Desk, machine: Machine, wait: Wait = False, timeout_s: TimeoutS = None) -> None:
    """Start a failed machine anew, in the same HOME."""
    again = await at.client.machines.retry(machine)
    if wait:
        again = await _settled(at, again, since=again.phase_since, timeout_s=timeout_s)
    _show_settled(at, again, is_good=not wait or again.phase is phases.Phase.ACTIVE)


@app.verb("history")
async def history(at: desk.Desk, machine: Machine) -> None:
    """Show its phases and stage runs, with how long each took and why it failed."""
    at.show(await at.client.machines.history(machine), views.history)


@app.verb("logs")
async def logs(
    at: desk.Desk,
    machine: Machine,
    tail_bytes: Annotated[
        int, typer.Option(min=1, max=machines.LOG_TAIL_MAX_BYTES, help="How much of its end.")
    ] = machines.LOG_TAIL_BYTES,
) -> None:
    """Print the end of the boot log of its newest sandbox; before it is active, too."""
    found = await at.client.machines.logs(machine, tail_bytes=tail_bytes)
    if at.is_json:
        print(found.model_dump_json(by_alias=True))
        return
    for line in found.text.splitlines():
        print(failures.printable(line))


@app.verb("write")
async def write(
    at: desk.Desk,
    machine: Machine,
    path: RemotePath,
    source: Annotated[
        pathlib.Path | None, typer.Option("--from", help="A file here; standard input unless given.")
    ] = None,
    mode: Annotated[str, typer.Option(help="Permission bits, octal.")] = "644",
) -> None:
    """Write one small file in it; parents are made."""
    written = await at.client.machines.write_file(machine, path, _content(source), mode=modes.read(mode))
    if at.is_json:
        print(written.model_dump_json(by_alias=True))
    else:
        at.done(f"wrote {written.bytes_written} bytes to {written.path}")


@app.verb("read")
async def read(
    at: desk.Desk,
    machine: Machine,
    path: RemotePath,
    target: Annotated[
        pathlib.Path | None, typer.Option("--to", help="A file here; standard output unless given.")
    ] = None,
) -> None:
    """Read a file in it; with --json its size, digest and mode."""
    if at.is_json:
        found = await at.client.machines.read_file(machine, path, length=0)
        print(found.model_dump_json(by_alias=True))
        return
    _keep(await at.client.machines.read_bytes(machine, path), target)


async def _settled(
    at: desk.Desk,
    machine: machines.Machine,
    *,
    since: str,
    timeout_s: float | None,
    until: frozenset[phases.Phase] = watch.SETTLED,
) -> machines.Machine:
    try:
        async with asyncio.timeout(timeout_s):
            return await timeline.follow(at, machine, since=since, until=until)
    except TimeoutError as error:
        raise errors.DeadlineExceeded(
            f"cannot say how machine {machine.id} ends: it was not there after {timeout_s:g} s and goes on"
        ) from error


def _show_settled(at: desk.Desk, machine: machines.Machine, *, is_good: bool) -> None:
    at.show(machine, views.machine)
    if is_good:
        return
    failures.say(failures.printable(timeline.failure(machine)))
    if machine.reason is not None and machine.reason.log_tail:
        for line in machine.reason.log_tail.splitlines()[-10:]:
            failures.say(f"  {failures.printable(line)}")
    raise typer.Exit(failures.MACHINE_FAILED)


def _content(source: pathlib.Path | None) -> bytes:
    if source is None:
        return sys.stdin.buffer.read()
    try:
        return source.read_bytes()
    except OSError as error:
        raise errors.InvalidParams(f"cannot read {source}: {error.strerror}") from error


def _keep(content: bytes, target: pathlib.Path | None) -> None:
    if target is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        target.write_bytes(content)
    except OSError as error:
        raise errors.InvalidParams(f"cannot write {target}: {error.strerror}") from error
