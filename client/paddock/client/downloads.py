"""Getting a file out of a machine: into a part beside the target, checked, and then put in its place.

The part's name says of which machine, path and version it is, so the next download of the same goes on where it stopped and
one of another version begins anew. The target is the old file or the whole new one, never half of it.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
import stat
from collections.abc import AsyncIterator
from typing import Final

from paddock.client import local_files, patience, reading, transport
from paddock.contracts import errors
from paddock.contracts.api import files as api
from paddock.contracts.api import methods

PART_SUFFIX: Final = ".paddock-part"
NAME_BYTES_MAX: Final = 255 - len(PART_SUFFIX) - 20
"""Of the target's name in the part's name: file systems take 255 bytes."""
TRIES: Final = 3
"""For a file that is another one every time we look."""
_PART: Final = re.compile(r"[0-9a-f]{16}" + re.escape(PART_SUFFIX))
Progress = local_files.Progress


@dataclasses.dataclass(frozen=True, slots=True)
class _Target:
    """A local path, links followed; `mode` is that of the file there, None where none is."""

    path: pathlib.Path
    mode: int | None

    def part(self, name: str) -> pathlib.Path:
        """The part with this name."""
        return self.path.with_name(f"{self.part_prefix}{name}{PART_SUFFIX}")

    @property
    def part_prefix(self) -> str:
        short = os.fsencode(self.path.name)[:NAME_BYTES_MAX].decode(errors="ignore")
        return f".{short}."


async def run(
    link: transport.Transport,
    machine_id: str,
    path: str,
    local: pathlib.Path,
    *,
    progress: Progress | None = None,
    on_link: patience.OnLink | None = None,
) -> api.FileInfo:
    """Download a file; see `Files.download`."""
    target = await asyncio.to_thread(_checked, local)
    with transport.checked():
        asked = api.MachineFileStat(machine_id=machine_id, path=path)
    for tries_left in reversed(range(TRIES)):
        info = await link.call(methods.MACHINE_FILE_STAT, asked)
        try:
            return await _Download(link, machine_id, path, info, target, progress, on_link).run()
        except errors.Conflict:
            if not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


class _Download:
    """One version of the file."""

    def __init__(
        self,
        link: transport.Transport,
        machine_id: str,
        path: str,
        info: api.FileInfo,
        target: _Target,
        progress: Progress | None,
        on_link: patience.OnLink | None,
    ) -> None:
        self._link, self._info, self._target = link, info, target
        self._machine_id, self._path = machine_id, path
        self._progress, self._on_link = progress, on_link
        text = f"{machine_id}\0{path}\0{info.version}"
        self._name = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]

    async def run(self) -> api.FileInfo:
        """Get what is missing of it, and put it in place."""
        path = self._target.part(self._name)
        part = await asyncio.to_thread(local_files.open_part, path, self._info.mode & 0o777, self._info.size)
        is_whole = False
        try:
            await part.digest_to(part.size_bytes)
            is_resumed = part.digested > 0
            is_whole = await self._get_rest(part)
            if not is_whole and is_resumed:
                await part.clear()  # what was here before was not of this file
                is_whole = await self._get_rest(part)
        finally:
            part.close()
            if not is_whole:
                part.remove_if_empty()  # nothing came that the next download could go on with
        if not is_whole:
            raise errors.BadAnswer(f"cannot download {self._path}: what arrived is not what the machine read")
        await asyncio.to_thread(_put_in_place, path, self._target, self._info.mode & 0o777)
        return self._info.model_copy(update={"sha256": await part.sha256()})

    async def _get_rest(self, part: local_files.Part) -> bool:
        """Read from where the part ends to the end of the file; whether the whole is what the machine read."""
        asked = api.MachineFileRead(
            machine_id=self._machine_id, path=self._path, offset=part.digested, version=self._info.version
        )
        async with reading.Reading(self._link, asked, on_link=self._on_link) as opened:
            self._tell(opened.offset)
            async for chunks in _blocks(opened):
                await part.write(chunks)
                self._tell(opened.offset)
            await part.flush()
        return opened.end is not None and opened.end.sha256 == await part.sha256()

    def _tell(self, done_bytes: int) -> None:
        if self._progress is not None:
            self._progress(done_bytes, self._info.size)


async def _blocks(opened: reading.Reading) -> AsyncIterator[list[bytes]]:
    """Chunks, as many at a time as are worth a thread's while."""
    chunks: list[bytes] = []
    size_bytes = 0
    async for chunk in opened:
        chunks.append(chunk)
        size_bytes += len(chunk)
        if size_bytes >= local_files.BLOCK_BYTES:
            yield chunks
            chunks, size_bytes = [], 0
    if chunks:
        yield chunks


def _checked(local: pathlib.Path) -> _Target:
    """Where to write, links followed.

    Raises:
        errors.Fault: No file can be there.
    """
    with local_files.refusals(f"write {local}"):
        path = pathlib.Path(os.path.realpath(local))
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            path.parent.stat()
            return _Target(path, None)
        if stat.S_ISDIR(mode):
            raise local_files.fault(
                errors.IsADirectory, f"cannot download to {local}: it is a folder on this computer"
            )
        if not stat.S_ISREG(mode):
            raise local_files.fault(
                errors.BadPath, f"cannot download to {local}: it is no regular file on this computer"
            )
        return _Target(path, stat.S_IMODE(mode))


def _put_in_place(part: pathlib.Path, target: _Target, mode: int) -> None:
    """Rename it over the target, and remove parts of other versions."""
    with local_files.refusals(f"write {target.path}"):
        made_with = stat.S_IMODE(part.stat().st_mode)
        part.chmod(made_with & mode if target.mode is None else target.mode)
        part.replace(target.path)
    with contextlib.suppress(OSError):
        for beside in target.path.parent.iterdir():
            if beside.name.startswith(target.part_prefix) and _PART.fullmatch(
                beside.name[len(target.part_prefix) :]
            ):
                beside.unlink(missing_ok=True)
