"""Copying files and whole folders between here and a machine.

A file is there whole or not at all, and an interrupted copy goes on where it was when it is asked for again. What cannot be
copied is said and counted, and the rest goes on. Links below a folder stay links: nothing is ever written through one.
"""

import asyncio
import dataclasses
import hashlib
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final

from paddock.client import client as gateway
from paddock.client import files, local_files
from paddock.client.commands import failures, inlet, links, outlet, places, progress, trees
from paddock.contracts import errors

AT_ONCE: Final = 4
"""Files of a folder under way: small ones wait for round trips, not for the network."""
COMPARED_FROM_BYTES: Final = 256 * 1024
"""A file of a folder that is there already is not sent again: from this size on a look costs less."""
LINKS_AT_ONCE: Final = 200
LINKS: Final = """
n=0
while [ $# -gt 1 ]; do
  if { [ -d "$2" ] && [ ! -L "$2" ]; } || ! ln -sfn -- "$1" "$2" 2>/dev/null; then echo "$n"; fi
  n=$((n + 1)); shift 2
done
"""
"""Prints the numbers of those that could not be made."""
OF_ONE_FILE: Final = (
    errors.NoSuchPath,
    errors.PermissionDenied,
    errors.IsADirectory,
    errors.NotADirectory,
    errors.BadPath,
    errors.PathExists,
    errors.Conflict,
    errors.InputOutput,
    errors.InvalidParams,
)
"""Faults after which the next file may still be copied."""


@dataclasses.dataclass(slots=True)
class Copier:
    """Copies between here and one machine. `count` files were copied; `left_out` were not.

    `way_on` is what to type to go on with a copy that is stopped: where it made the target folder, the same words would
    copy into that.
    """

    client: gateway.Client
    machine: str
    progress: progress.Progress
    count: int = 0
    left_out: list[str] = dataclasses.field(default_factory=list)
    way_on: str = "the same command goes on from here"
    link: links.Notice = dataclasses.field(default_factory=links.Notice)

    @property
    def its(self) -> files.Files:
        return self.client.machine(self.machine).files

    def leave_out(self, what: str, why: str) -> None:
        self.left_out.append(what)
        failures.say(failures.printable(f"left out {what}: {why}"))

    async def up(self, local: pathlib.Path, path: str, name: str, *, mode: int | None = None) -> None:
        """One file into the machine; `name` is shown."""
        await self.its.upload(
            local,
            path,
            mode=mode,
            progress=lambda done, total: self.progress.step(path, name, done, total),
            on_link=self.link,
        )
        self.count += 1

    async def up_stream(self, fd: int, name: str, path: str) -> None:
        """What a pipe or terminal gives until its end, into the machine."""
        async with inlet.Inlet(fd) as pieces:
            await self.its.upload(
                _each(pieces),
                path,
                progress=lambda done, total: self.progress.step(path, name, done, total),
                on_link=self.link,
            )
        self.count += 1

    async def down(self, path: str, local: pathlib.Path, name: str) -> None:
        """One file out of the machine."""
        await self.its.download(
            path,
            local,
            progress=lambda done, total: self.progress.step(str(local), name, done, total),
            on_link=self.link,
        )
        self.count += 1

    async def down_stream(self, path: str) -> None:
        """One file out of the machine, to our standard output."""
        digest = hashlib.sha256()
        async with outlet.Outlet() as out, self.its.open(path, on_link=self.link) as opened:
            self.progress.expect(opened.info.size)
            async for chunk in opened:
                digest.update(chunk)
                await out.write("stdout", chunk)
                self.progress.step(path, opened.info.name, opened.offset, opened.info.size)
        if opened.end is not None and opened.end.sha256 not in {"", digest.hexdigest()}:
            raise errors.BadAnswer(f"cannot copy {path} whole: what arrived is not what the machine read")
        self.count += 1

    async def up_tree(self, top: pathlib.Path, path: str) -> None:
        """A folder with all that is in it, into the machine."""
        tree = await asyncio.to_thread(trees.of_folder, top)
        self._begin(tree, str(top))
        made = [
            one for one in (trees.Entry("", tree.mode & 0o777), *tree.folders) if await self._mkdir(path, one)
        ]
        await self._all(tree.files, lambda one: self._up_one(top, path, one))
        await self._make_links(path, tree.links)
        for one in reversed(made):
            if one.mode != _open(one.mode):
                await self.its.chmod(_below(path, one.path), one.mode)

    async def down_tree(self, path: str, top: pathlib.Path) -> None:
        """A folder with all that is in it, out of the machine."""
        tree = await trees.of_machine(self.its, await self.its.stat(path), path)
        self._begin(tree, f"{self.machine}:{path}")
        folders = (trees.Entry("", tree.mode), *tree.folders)
        made = [one for one in folders if await asyncio.to_thread(self._mkdir_here, top, one)]
        await self._all(tree.files, lambda one: self._down_one(path, top, one))
        # Last, so that no file of the machine's choosing can be written through one.
        for one in tree.links:
            await asyncio.to_thread(self._link_here, top, one)
        for one in reversed(made):
            if one.mode != _open(one.mode):
                await asyncio.to_thread((top / one.path).chmod, one.mode)

    def _begin(self, tree: trees.Tree, top: str) -> None:
        for path, why in tree.left_out:
            self.leave_out(f"{top.rstrip('/')}/{path}", why)
        self.progress.expect(sum(one.size_bytes for one in tree.files))

    async def _all(
        self, entries: Iterable[trees.Entry], copy: Callable[[trees.Entry], Awaitable[None]]
    ) -> None:
        """Copy every file, some at once; a fault of one leaves it out, any other ends it all."""
        waiting = iter(list(entries))
        fatal: list[errors.Fault] = []
        async with asyncio.TaskGroup() as tasks:
            workers: list[asyncio.Task[None]] = []

            async def work() -> None:
                for one in waiting:
                    try:
                        await copy(one)
                    except OF_ONE_FILE as fault:
                        self.leave_out(one.path, fault.message.rstrip("."))
                    except errors.Fault as fault:
                        fatal.append(fault)
                        for worker in workers:
                            worker.cancel()

            workers += [tasks.create_task(work(), name=f"copy {number}") for number in range(AT_ONCE)]
        if fatal:
            raise fatal[0]

    async def _up_one(self, top: pathlib.Path, path: str, one: trees.Entry) -> None:
        local, target = top / one.path, _below(path, one.path)
        if await self._is_same(local, target, one, is_mode_compared=True):
            self._was_there(target, one)
            return
        await self.up(local, target, one.path, mode=one.mode)

    async def _down_one(self, path: str, top: pathlib.Path, one: trees.Entry) -> None:
        local = top / one.path
        if await asyncio.to_thread(local.is_symlink):
            await asyncio.to_thread(local.unlink)
        if await self._is_same(local, _below(path, one.path), one, is_mode_compared=False):
            self._was_there(str(local), one)
            return
        await self.down(_below(path, one.path), local, one.path)

    async def _is_same(
        self, local: pathlib.Path, path: str, one: trees.Entry, *, is_mode_compared: bool
    ) -> bool:
        """Whether the file is on both sides already, as after an interrupted copy."""
        if one.size_bytes < COMPARED_FROM_BYTES:
            return False
        try:
            here = await asyncio.to_thread(local.stat)
            there = await self.its.stat(path)
            if (here.st_size, "file") != (there.size, there.kind):
                return False
            if is_mode_compared and there.mode & 0o777 != one.mode:
                return False
            return (await self.its.stat(path, digest=True)).sha256 == await _sha256(local)
        except (OSError, *OF_ONE_FILE):
            return False

    def _was_there(self, target: str, one: trees.Entry) -> None:
        self.progress.step(target, one.path, one.size_bytes, one.size_bytes)
        self.count += 1

    async def _mkdir(self, top: str, one: trees.Entry) -> bool:
        """Make a folder of the machine; whether it was made here. One that exists stays as it is."""
        path = _below(top, one.path)
        try:
            await self.its.mkdir(path, mode=_open(one.mode))
        except errors.PathExists:
            if (await self.its.stat(path)).kind != "directory":
                raise errors.NotADirectory(
                    f"cannot copy to {self.machine}:{path}: something that is no folder is there"
                ) from None
            return False
        return True

    def _mkdir_here(self, top: pathlib.Path, one: trees.Entry) -> bool:
        folder = top / one.path
        with local_files.refusals(f"make {folder}"):
            try:
                folder.mkdir(mode=_open(one.mode))
            except FileExistsError:
                if folder.is_dir() and (not one.path or not folder.is_symlink()):
                    return False
                raise errors.NotADirectory(
                    f"cannot copy to {folder}: something that is no folder is there"
                ) from None
        return True

    async def _make_links(self, top: str, entries: list[trees.Entry]) -> None:
        """By the machine's own `ln`: links are no business of writing files."""
        for begin in range(0, len(entries), LINKS_AT_ONCE):
            some = entries[begin : begin + LINKS_AT_ONCE]
            words = [word for one in some for word in (one.target, f"./{one.path}")]
            try:
                done = await self.client.machines.exec(
                    self.machine, ["/bin/sh", "-c", LINKS, "sh", *words], cwd=top
                )
                failed = (
                    set(done.stdout.split()) if done.exit_code == 0 else {str(n) for n in range(len(some))}
                )
            except (errors.CommandNotFound, errors.PermissionDenied, errors.InvalidParams):
                failed = {str(number) for number in range(len(some))}
            for number, one in enumerate(some):
                if str(number) in failed:
                    self.leave_out(one.path, f"the link to {one.target} could not be made")
                else:
                    self.count += 1

    def _link_here(self, top: pathlib.Path, one: trees.Entry) -> None:
        path = top / one.path
        try:
            if path.is_symlink():
                path.unlink()
            path.symlink_to(one.target)
        except (OSError, ValueError):
            self.leave_out(one.path, f"the link to {one.target} could not be made")
        else:
            self.count += 1


async def _each(pieces: inlet.Inlet) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield piece


def _below(top: str, path: str) -> str:
    return places.joined(top, path) if path else top


def _open(mode: int) -> int:
    """The mode of a folder while it is filled."""
    return mode | 0o700


async def _sha256(path: pathlib.Path) -> str:
    source = await asyncio.to_thread(local_files.open_source, path)
    try:
        await source.digest_to(source.size_bytes)
        return await source.sha256()
    finally:
        source.close()
