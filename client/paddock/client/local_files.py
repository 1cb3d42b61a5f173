"""Files of this computer, as a copy to or from a machine needs them: read ahead, written behind, digested on the way.

All that touches the disk happens in threads. What the file system refuses is told by the same faults as a machine's, with
`data["isLocal"]`, so that nobody looks for a full disk in the wrong place.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import pathlib
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

from paddock.contracts import errors

BLOCK_BYTES: Final = 1024 * 1024
"""Read or written at once: as much as is worth a thread's while."""

Progress = Callable[[int, int], None]
"""Told the bytes that arrived so far, and the size; the size is 0 when it is not known."""

_FAULTS: Final[dict[int, type[errors.Fault]]] = {
    errno.ENOENT: errors.NoSuchPath,
    errno.ENOTDIR: errors.NotADirectory,
    errno.EISDIR: errors.IsADirectory,
    errno.EACCES: errors.PermissionDenied,
    errno.EPERM: errors.PermissionDenied,
    errno.EROFS: errors.ReadOnly,
    errno.ENOSPC: errors.DiskFull,
    errno.EDQUOT: errors.DiskFull,
    errno.EFBIG: errors.DiskFull,
    errno.ENAMETOOLONG: errors.BadPath,
    errno.ELOOP: errors.BadPath,
    errno.EINVAL: errors.BadPath,
}
_SENTENCES: Final = {
    errors.NoSuchPath: "it is not there",
    errors.NotADirectory: "a part of the path is no folder",
    errors.IsADirectory: "it is a folder",
    errors.PermissionDenied: "this user may not",
    errors.ReadOnly: "the file system is read-only",
    errors.DiskFull: "the disk of this computer is full",
}


def fault(kind: type[errors.Fault], sentence: str) -> errors.Fault:
    """One of the local side."""
    return kind(sentence, data={"isLocal": True})


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """What the file system refuses in this block, as a fault that says what could not be done: `what` and why."""
    try:
        yield
    except OSError as error:
        kind = _FAULTS.get(error.errno or 0, errors.InputOutput)
        why = _SENTENCES.get(kind) or os.strerror(error.errno or errno.EIO).lower()
        raise fault(kind, f"cannot {what} on this computer: {why}") from error
    except ValueError as error:  # a NUL in a path
        raise fault(errors.BadPath, f"cannot {what} on this computer: such a path cannot be") from error


class Digested:
    """A local file whose bytes are digested in order, each once. Threads take turns; after `close` they do nothing."""

    def __init__(self, file: BinaryIO, path: pathlib.Path) -> None:
        self.path = path
        self.digested = 0
        self._file = file
        self._digest = hashlib.sha256()
        self._turn = threading.Lock()
        self._is_closed = False

    def close(self) -> None:
        """Stop what a thread is doing here, and close the file."""
        self._is_closed = True
        with self._turn:
            self._file.close()

    async def sha256(self) -> str:
        """Of what was digested so far."""
        return self._digest.copy().hexdigest()

    async def digest_to(self, offset: int) -> None:
        """Digest what lies before `offset` and was not yet. Cancellation: safe; what was done is kept."""
        await asyncio.to_thread(self._digest_to, offset)

    def _digest_to(self, offset: int) -> None:
        with self._turn, refusals(f"read {self.path}"):
            while self.digested < offset and not self._is_closed:
                self._file.seek(self.digested)
                if not (data := self._file.read(min(BLOCK_BYTES, offset - self.digested))):
                    return
                self._took(self.digested, data)

    def _took(self, offset: int, data: bytes | memoryview) -> None:
        """Digest the part of `data` that follows what was digested."""
        fresh = memoryview(data)[max(0, self.digested - offset) :]
        if fresh and offset <= self.digested:
            self._digest.update(fresh)
            self.digested += len(fresh)


class Source(Digested):
    """A local file to be read once from front to back, and again from where the machine says."""

    def __init__(self, file: BinaryIO, path: pathlib.Path) -> None:
        super().__init__(file, path)
        self._was = os.fstat(file.fileno())
        self.size_bytes = self._was.st_size
        self._ahead: tuple[int, asyncio.Future[bytes]] | None = None

    @property
    def identity(self) -> str:
        """Another one when it is another file or was changed."""
        was = self._was
        return f"{self.path}:{was.st_dev}:{was.st_ino}:{was.st_size}:{was.st_mtime_ns}"

    async def at(self, offset: int) -> bytes:
        """Some bytes from `offset` on, none at the end; the next ones are read while these are sent.

        Raises:
            errors.Conflict: The file is not what it was when it was opened.
            errors.Fault: It cannot be read.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == offset:
            data = await ahead[1]
        else:
            data = await asyncio.to_thread(self._read, offset)
        if data:
            self._ahead = (offset + len(data), self._begin_reading(offset + len(data)))
        return data

    async def check_unchanged(self, size_bytes: int) -> None:
        """Raises `errors.Conflict` when the file changed since it was opened, or is not `size_bytes` long."""
        now = await asyncio.to_thread(self._stat)
        # Files such as those of /proc say 0 and hold more.
        is_whole = self.size_bytes in {0, size_bytes}
        if not is_whole or _identity(now) != _identity(self._was):
            raise fault(
                errors.Conflict, f"cannot upload {self.path}: it changed while it was read; try again"
            )

    def _begin_reading(self, offset: int) -> "asyncio.Future[bytes]":
        reading = asyncio.get_running_loop().run_in_executor(None, self._read, offset)
        reading.add_done_callback(_looked_at)
        return reading

    def _read(self, offset: int) -> bytes:
        with self._turn, refusals(f"read {self.path}"):
            if self._is_closed:
                return b""
            self._file.seek(offset)
            data = self._file.read(BLOCK_BYTES)
            self._took(offset, data)
            return data

    def _stat(self) -> os.stat_result:
        with refusals(f"read {self.path}"):
            return self.path.stat()


class Part(Digested):
    """What has come of a download: written behind the network, in order, from `digested` on."""

    def __init__(self, file: BinaryIO, path: pathlib.Path) -> None:
        super().__init__(file, path)
        self.size_bytes = os.fstat(file.fileno()).st_size
        self._behind: asyncio.Future[None] | None = None

    async def write(self, chunks: list[bytes]) -> None:
        """Append; returns when what was given before is on its way to the disk, so a fault may be of that.

        Raises:
            errors.DiskFull: Or another fault; what was written is kept.
        """
        await self.flush()
        self._behind = asyncio.get_running_loop().run_in_executor(None, self._write, chunks)
        self._behind.add_done_callback(_looked_at)

    async def flush(self) -> None:
        """Wait until all that was given is written."""
        behind, self._behind = self._behind, None
        if behind is not None:
            await behind

    async def clear(self) -> None:
        """Begin anew."""
        await self.flush()
        await asyncio.to_thread(self._clear)

    def remove_if_empty(self) -> None:
        """Leave no file that holds nothing; after `close`."""
        with contextlib.suppress(OSError):
            if self.path.stat().st_size == 0:
                self.path.unlink()

    def _write(self, chunks: list[bytes]) -> None:
        with self._turn, refusals(f"write {self.path}"):
            for chunk in chunks:
                written = 0
                while written < len(chunk):
                    if self._is_closed:
                        return
                    self._file.seek(self.digested + written)
                    written += self._file.write(memoryview(chunk)[written:])
                self._took(self.digested, chunk)

    def _clear(self) -> None:
        with self._turn, refusals(f"write {self.path}"):
            self._file.truncate(0)
            self.digested, self._digest = 0, hashlib.sha256()


def open_part(path: pathlib.Path, mode: int, size_max: int) -> Part:
    """Open a part, made with permission bits `mode` as far as the umask allows; a longer one begins anew."""
    with refusals(f"write {path}"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), mode | 0o600)
        part = Part(open(descriptor, "r+b", buffering=0), path)  # noqa: PTH123, SIM115 - by its descriptor; the caller closes it
        if part.size_bytes > size_max:
            os.ftruncate(descriptor, 0)
            part.size_bytes = 0
        return part


def open_source(path: pathlib.Path) -> Source:
    """Open a regular local file.

    Raises:
        errors.Fault: It is not there, no file, or not to be read.
    """
    with refusals(f"read {path}"):
        path = pathlib.Path(os.path.realpath(path))
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise fault(errors.IsADirectory, f"cannot upload {path}: it is a folder on this computer")
        if not stat.S_ISREG(mode):
            raise fault(errors.BadPath, f"cannot upload {path}: it is no regular file on this computer")
        return Source(path.open("rb", buffering=0), path)


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _looked_at(work: "asyncio.Future[Any]") -> None:
    """A fault of work that nobody waits for any more is nobody's."""
    if not work.cancelled():
        work.exception()
