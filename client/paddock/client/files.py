"""Files in a machine, of any size: reading, writing, copying in and out, and what is there.

Nothing half-written ever shows at a path of the machine, and copying goes on where it stopped.
"""

import asyncio
import builtins
import pathlib
from collections.abc import AsyncIterator

from paddock.client import downloads, machines, patience, reading, transport, upload_sources, uploads
from paddock.contracts import errors, files
from paddock.contracts.api import base, methods
from paddock.contracts.api import files as api

DIGEST_S = 600.0
"""For a digest of a large file, a deep removal or a wide search, on top of what any call may take."""


class Files:
    """The files of one machine. Paths are absolute or under ~, without `..`."""

    def __init__(self, link: transport.Transport, machine_id: str) -> None:
        self._link, self._machine_id = link, machine_id

    def open(
        self,
        path: str,
        *,
        offset: int = 0,
        length: int | None = None,
        version: str = "",
        on_link: patience.OnLink | None = None,
    ) -> reading.Reading:
        """Read in pieces: `async with files.open(path) as reading: async for chunk in reading`.

        Args:
            path: Of a file.
            offset: The first byte.
            length: How many; to the end when None.
            version: Of a reading to go on with; another file is then a conflict.
            on_link: Told False when the link was cut and True when it is back.
        """
        with transport.checked():
            asked = api.MachineFileRead(
                machine_id=self._machine_id, path=path, offset=offset, length=length, version=version
            )
        return reading.Reading(self._link, asked, on_link=on_link)

    async def read(self, path: str, *, limit_bytes: int | None = None) -> bytes:
        """A whole file, in memory, checked against its digest.

        Raises:
            errors.NoSuchPath: Nothing is there. IsADirectory, PermissionDenied and others likewise.
            errors.PayloadTooLarge: It has more than `limit_bytes`.
            errors.Conflict: It became another file while it was read and the link was cut.

        Cancellation: safe.
        """
        async with self.open(path) as opened:
            if limit_bytes is not None and opened.info.size > limit_bytes:
                raise errors.PayloadTooLarge(
                    f"cannot read {path}: its {opened.info.size} bytes are more than the {limit_bytes} asked for"
                )
            content = b"".join([chunk async for chunk in opened])
        digest = opened.end.sha256 if opened.end is not None else ""
        if digest and digest != await asyncio.to_thread(upload_sources.sha256_of, content):
            raise errors.BadAnswer(f"cannot read {path}: what arrived is not what the machine read")
        return content

    async def write(
        self,
        path: str,
        data: bytes | bytearray | memoryview | str,
        *,
        mode: int | None = None,
        expected_sha256: str | None = None,
        parents: bool = False,
    ) -> api.FileInfo:
        """Write a file, whole or not at all; text goes as UTF-8.

        Args:
            path: Where.
            data: All of it.
            mode: Permission bits; those of the file there when None, else 0644.
            expected_sha256: What must be there now: a digest, or `files.ABSENT`.
            parents: Make the folders above that are missing.

        Raises:
            errors.Conflict: Something else is there than was expected.
            errors.DiskFull: Or ReadOnly, PermissionDenied, NoSuchPath and others; the file is as it was.

        Cancellation: the file is the old one or the new one.
        """
        content = data.encode() if isinstance(data, str) else bytes(data)
        plan = self._plan(path, machines.new_token(), mode, expected_sha256, parents=parents)
        return await uploads.run(self._link, plan, upload_sources.Memory(content))

    async def upload(
        self,
        local: pathlib.Path | str | AsyncIterator[bytes],
        path: str,
        *,
        progress: uploads.Progress | None = None,
        upload: str | None = None,
        mode: int | None = None,
        expected_sha256: str | None = None,
        parents: bool = False,
        on_link: patience.OnLink | None = None,
    ) -> api.FileInfo:
        """Copy a local file into the machine; asked again after it was stopped, it goes on where it was.

        Args:
            local: The file; or pieces of bytes, which go on over cut links but not in another process.
            path: Where to in the machine: a file, not a folder.
            progress: Told the bytes the machine has, and the size (0 where it is not known).
            upload: Your name for it; made from both ends and the file's size and time when None.
            mode: Permission bits; those of the file there when None, else 0644.
            expected_sha256: What must be there now: a digest, or `files.ABSENT`.
            parents: Make the folders above that are missing.
            on_link: Told False when the link was cut and True when it is back.

        Raises:
            errors.Conflict: The local file changed while it was read, or something else is there than was expected.
            errors.NoSuchPath: The local file, or a folder of the machine, is not there; other faults likewise. Those of
                the local side have `data["isLocal"]`.

        Cancellation: the file in the machine is the old one; what was sent is kept for a day for the next time.
        """
        plan = self._plan(path, upload, mode, expected_sha256, parents=parents)
        if isinstance(local, (str, pathlib.Path)):
            return await uploads.of_file(
                self._link, plan, pathlib.Path(local), progress=progress, on_link=on_link
            )
        return await uploads.run(
            self._link, plan, upload_sources.Pieces(local), progress=progress, on_link=on_link
        )

    async def download(
        self,
        path: str,
        local: pathlib.Path | str,
        *,
        progress: downloads.Progress | None = None,
        on_link: patience.OnLink | None = None,
    ) -> api.FileInfo:
        """Copy a file of the machine to a local file, whole or not at all; stopped, it goes on where it was.

        What has come is kept beside the target, as `.<name>.<…>.paddock-part`. The target keeps its permission bits; a
        new one gets those of the file in the machine, as far as the umask allows.

        Args:
            path: Of a file in the machine.
            local: A file's path, not a folder's; what is there is replaced.
            progress: Told the bytes that are here, and the size.
            on_link: Told False when the link was cut and True when it is back.

        Raises:
            errors.Conflict: The file in the machine kept changing.
            errors.NoSuchPath: It is not there; other faults likewise.
            errors.DiskFull: Or PermissionDenied, ReadOnly, IsADirectory of the local side, with `data["isLocal"]`.

        Cancellation: the local file is the old one, and the next download goes on.
        """
        return await downloads.run(
            self._link, self._machine_id, path, pathlib.Path(local), progress=progress, on_link=on_link
        )

    async def stat(self, path: str, *, digest: bool = False, follow: bool = True) -> api.FileInfo:
        """What a path is; with `digest` also its sha256. `follow`: a link's target, not the link."""
        with transport.checked():
            asked = api.MachineFileStat(machine_id=self._machine_id, path=path, digest=digest, follow=follow)
        return await self._link.call(methods.MACHINE_FILE_STAT, asked, takes_s=DIGEST_S if digest else 0.0)

    async def each(self, path: str) -> AsyncIterator[api.FileInfo]:
        """What is in a folder, by name, page after page."""
        after = ""
        while True:
            with transport.checked():
                asked = api.MachineFileList(machine_id=self._machine_id, path=path, after=after)
            page = await self._link.call(methods.MACHINE_FILE_LIST, asked)
            for entry in page.entries:
                yield entry
            if page.is_last or not page.entries or page.entries[-1].name == after:
                return
            after = page.entries[-1].name

    async def list(self, path: str) -> builtins.list[api.FileInfo]:
        """All that is in a folder, by name."""
        return [entry async for entry in self.each(path)]

    async def mkdir(self, path: str, *, mode: int = 0o755, parents: bool = False) -> api.FileInfo:
        """Make a folder; with `parents` also those above, and one that exists is no fault."""
        with transport.checked():
            asked = api.MachineFileMkdir(
                machine_id=self._machine_id,
                path=path,
                mode=mode,
                parents=parents,
                call_id=machines.new_token(),
            )
        return await self._link.call(methods.MACHINE_FILE_MKDIR, asked, is_named=True)

    async def move(
        self, path: str, to: str, *, overwrite: bool = False, expected_sha256: str | None = None
    ) -> api.FileInfo:
        """Rename.

        Raises:
            errors.PathExists: Something is at `to`, and `overwrite` was not asked for.
            errors.Conflict: Something else is at `path` than was expected.
        """
        with transport.checked():
            asked = api.MachineFileMove(
                machine_id=self._machine_id,
                path=path,
                to=to,
                overwrite=overwrite,
                expected_sha256=expected_sha256,
                call_id=machines.new_token(),
            )
        return await self._link.call(methods.MACHINE_FILE_MOVE, asked, is_named=True)

    async def remove(
        self, path: str, *, recursive: bool = False, expected_sha256: str | None = None
    ) -> base.Done:
        """Remove a file, a link (never what it points at) or a folder.

        Raises:
            errors.NotEmpty: A folder has something in it, and `recursive` was not asked for.
        """
        with transport.checked():
            asked = api.MachineFileRemove(
                machine_id=self._machine_id,
                path=path,
                recursive=recursive,
                expected_sha256=expected_sha256,
                call_id=machines.new_token(),
            )
        takes_s = DIGEST_S if recursive else 0.0
        return await self._link.call(methods.MACHINE_FILE_REMOVE, asked, takes_s=takes_s, is_named=True)

    async def chmod(self, path: str, mode: int, *, recursive: bool = False) -> api.FileInfo:
        """Change permission bits."""
        with transport.checked():
            asked = api.MachineFileChmod(
                machine_id=self._machine_id,
                path=path,
                mode=mode,
                recursive=recursive,
                call_id=machines.new_token(),
            )
        takes_s = DIGEST_S if recursive else 0.0
        return await self._link.call(methods.MACHINE_FILE_CHMOD, asked, takes_s=takes_s, is_named=True)

    async def find(
        self,
        path: str,
        *,
        pattern: str = "*",
        kind: files.Kind | None = None,
        depth_max: int = 100,
        limit: int = 1000,
    ) -> api.FilesFound:
        """Everything below a folder whose name fits a glob such as `*.py`; links are not followed."""
        with transport.checked():
            asked = api.MachineFileFind(
                machine_id=self._machine_id,
                path=path,
                pattern=pattern,
                kind=kind,
                depth_max=depth_max,
                limit=limit,
            )
        return await self._link.call(methods.MACHINE_FILE_FIND, asked, takes_s=DIGEST_S)

    def _plan(
        self, path: str, upload: str | None, mode: int | None, expected_sha256: str | None, *, parents: bool
    ) -> uploads.Plan:
        plan = uploads.Plan(
            machine_id=self._machine_id,
            path=path,
            upload=upload or machines.new_token(),
            is_named_here=upload is None,
            mode=mode,
            expected_sha256=expected_sha256,
            parents=parents,
        )
        with transport.checked():
            plan.writing()
            plan.commit(size=0, sha256="0" * 64, call_id="0")
        return plan
