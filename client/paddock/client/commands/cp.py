"""`paddock cp SOURCE… TARGET`: files and folders to a machine or from one."""

import asyncio
import functools
import json
import os
import pathlib
import shlex
import signal
import stat
from collections.abc import Coroutine
from typing import Annotated

import typer

from paddock.client import local_files
from paddock.client.commands import (
    aside,
    copying,
    desk,
    failures,
    inlet,
    noun,
    outlet,
    places,
    progress,
    signals,
)
from paddock.contracts import errors

app = noun.Noun("Copy files and folders to a machine or from one.")


@app.verb("cp")
async def cp(
    at: desk.Desk,
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help="MACHINE:PATH, a path here, or -.")],
    target: Annotated[str, typer.Argument(help="MACHINE:PATH, a path here, or -.")],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Folders, with all that is in them.")
    ] = False,
) -> None:
    """Copy files and folders to a machine or from one, as cp does: into the target where that is a folder.

    As in: paddock cp -r ./app m123:src

    One side is in a machine, from its home directory unless the path is absolute; - is standard input or output.
    Permission bits are kept, links below a folder stay links, and no file is ever there by half. Stopped by Ctrl-C or a
    lost link, a copy goes on where it was when it is asked for again. The exit code is 1 when something was left out.
    """
    froms, to = [places.read(source) for source in sources], places.read(target)
    machine = _machine(froms, to)
    with progress.shown(is_wanted=not at.is_json) as drawn:
        copier = copying.Copier(at.client, machine, drawn)
        stopped_by = await _until_stopped(_copy(copier, froms, to, is_recursive=recursive))
        if stopped_by is None:
            drawn.finished()
    if stopped_by in {signal.SIGPIPE, signal.SIGHUP}:
        raise typer.Exit(signals.BASE + stopped_by)  # nobody is there to read anything
    if stopped_by is not None:
        is_resumable = not to.is_stream and not froms[0].is_stream
        failures.say(failures.printable(f"stopped here; {copier.way_on}" if is_resumable else "stopped here"))
        raise typer.Exit(signals.BASE + stopped_by)
    if at.is_json:
        print(json.dumps({"files": copier.count, "bytes": drawn.copied_bytes, "leftOut": copier.left_out}))
    if copier.left_out:
        failures.say(f"{len(copier.left_out)} left out, {copier.count} copied")
        raise typer.Exit(failures.MACHINE_FAILED)


def _machine(froms: list[places.Place], to: places.Place) -> str:
    """The one machine of a copy."""
    if len({one.machine for one in froms}) > 1 or bool(to.machine) == bool(froms[0].machine):
        raise errors.InvalidParams(
            "cannot copy: one side must be in a machine and the other here, as in paddock cp FILE MACHINE:PATH"
        )
    if len(froms) > 1 and (to.is_stream or any(one.is_stream for one in froms)):
        raise errors.InvalidParams("cannot copy: with - there is one source only")
    return to.machine or froms[0].machine


async def _until_stopped(copy: Coroutine[None, None, None]) -> signal.Signals | None:
    """Copy, unless a signal stops it: that one is answered.

    Raises:
        errors.Fault: It could not be copied.
    """
    tasks: list[asyncio.Task[errors.Fault | None]] = []
    stopped_by: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        stopped_by.append(number)
        tasks[0].cancel()

    async def outcome() -> errors.Fault | None:
        try:
            await copy
        except errors.Fault as fault:
            return fault
        except BrokenPipeError:
            stopped_by.append(signal.SIGPIPE)
        except outlet.HungUp:
            stopped_by.append(signal.SIGHUP)
        return None

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with signals.handled({number: functools.partial(stop, number) for number in numbers}):
        async with asyncio.TaskGroup() as group:
            tasks.append(group.create_task(outcome(), name="copy"))
    if not tasks[0].cancelled() and (fault := tasks[0].result()) is not None:
        raise fault
    return stopped_by[0] if stopped_by else None


async def _copy(
    copier: copying.Copier, froms: list[places.Place], to: places.Place, *, is_recursive: bool
) -> None:
    is_many = len(froms) > 1
    for one in froms:
        try:
            if to.machine:
                await _copy_up(copier, one, to, is_many=is_many, is_recursive=is_recursive)
            else:
                await _copy_down(copier, one, to, is_many=is_many, is_recursive=is_recursive)
        except copying.OF_ONE_FILE as fault:
            if not is_many:
                raise
            copier.leave_out(str(one), fault.message.rstrip("."))


async def _copy_up(
    copier: copying.Copier, one: places.Place, to: places.Place, *, is_many: bool, is_recursive: bool
) -> None:
    if one.is_stream and not inlet.is_open():
        raise errors.InvalidParams("cannot copy our standard input: it is closed")
    local = pathlib.Path(one.path)
    with local_files.refusals(f"copy {one}"):
        known = os.fstat(inlet.STDIN) if one.is_stream else await asyncio.to_thread(local.stat)
    is_folder = stat.S_ISDIR(known.st_mode)
    is_into = await _is_folder(copier, to.path)
    path = _target(one, to, is_into=is_into, is_folder=is_folder, is_many=is_many)
    if is_folder:
        _expect_recursive(one, is_recursive=is_recursive)
        _note_way_on(copier, one, to, is_into=is_into)
        await copier.up_tree(local, path)
    elif one.is_stream:
        await copier.up_stream(inlet.STDIN, "standard input", path)
    elif stat.S_ISREG(known.st_mode):
        copier.progress.expect(known.st_size)
        await copier.up(local, path, str(one), mode=stat.S_IMODE(known.st_mode) & 0o777)
    else:
        await _copy_pipe(copier, local, path)


async def _copy_pipe(copier: copying.Copier, local: pathlib.Path, path: str) -> None:
    """What comes out of a named pipe or a device, such as the shell's `<(command)`."""
    thread = aside.Aside("open")  # a pipe may wait for its writer for ever
    with local_files.refusals(f"copy {local}"):
        fd = await thread.do(lambda: os.open(local, os.O_RDONLY | os.O_CLOEXEC))
    thread.close()
    try:
        await copier.up_stream(fd, str(local), path)
    finally:
        os.close(fd)


async def _copy_down(
    copier: copying.Copier, one: places.Place, to: places.Place, *, is_many: bool, is_recursive: bool
) -> None:
    known = await copier.its.stat(one.path)
    is_folder = known.kind == "directory"
    if to.is_stream:
        if is_folder:
            raise errors.IsADirectory(f"cannot copy {one} to standard output: it is a folder")
        await copier.down_stream(one.path)
        return
    is_into = await asyncio.to_thread(os.path.isdir, to.path)
    target = pathlib.Path(_target(one, to, is_into=is_into, is_folder=is_folder, is_many=is_many))
    if is_folder:
        _expect_recursive(one, is_recursive=is_recursive)
        _note_way_on(copier, one, to, is_into=is_into)
        await copier.down_tree(one.path, target)
    else:
        copier.progress.expect(known.size)
        await copier.down(one.path, target, str(one))


def _target(one: places.Place, to: places.Place, *, is_into: bool, is_folder: bool, is_many: bool) -> str:
    """The path of the copy, as cp has it."""
    if is_into and one.is_stream:
        raise errors.IsADirectory(
            f"cannot copy standard input to {to}: it is a folder, so give a file's name"
        )
    if is_into:
        return places.joined(to.path, one.name) if one.name else to.path
    if is_many or (to.is_named_as_folder and not is_folder):
        raise errors.NoSuchPath(f"cannot copy {one} into {to}: there is no such folder")
    return to.path


async def _is_folder(copier: copying.Copier, path: str) -> bool:
    try:
        return (await copier.its.stat(path)).kind == "directory"
    except errors.NoSuchPath:
        return False


def _expect_recursive(one: places.Place, *, is_recursive: bool) -> None:
    if not is_recursive:
        raise errors.IsADirectory(f"cannot copy {one}: it is a folder; to copy it whole, give -r")


def _note_way_on(copier: copying.Copier, one: places.Place, to: places.Place, *, is_into: bool) -> None:
    """After this the target is there, and the same words would mean a folder in it."""
    if not is_into and one.name:
        words = ("paddock", "cp", "-r", f"{str(one).rstrip('/')}/.", str(to))
        copier.way_on = f"go on with: {shlex.join(words)}"
