"""The part file of an upload: it grows beside its target until it takes the target's place.

Its name cannot be guessed and it is ours alone; one that somebody touched is given up. What was received is its size, so it
goes on after a restart. The digest is of what is in the file and follows what was received by steps, because each hop
between threads costs more than reading a mebibyte again. Blocks: use it in a thread.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import stat

from paddock.contracts import errors
from paddock.daemon import file_changes, file_place, file_slices

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_HASH_BYTES = 1024 * 1024
_FLUSH_BYTES = 4 * 1024 * 1024
_CACHED_BYTES = 8 * 1024 * 1024
"""Of a large file, what may wait in the machine's memory to be written to disk. The rest is on disk long before the commit
waits for it; and memory that is used again costs a tenth of what fresh memory does."""
_CLOSED = -1
_TOUCHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO})
"""What opening says when something else, or nothing, has its name."""


class LostError(Exception):
    """The part file is gone, or somebody touched it."""


def new_name() -> str:
    """A name for a part file."""
    return f".paddock-{secrets.token_hex(8)}.part"


class Part:
    """One part file. Used after `rest`, it is opened again."""

    def __init__(self, path: str, inode: tuple[int, int] = (0, 0)) -> None:
        """Know one.

        Args:
            path: Where it is, without links.
            inode: Its device and number, where known: then it may have another owner by now.
        """
        self.path = path
        self.received = 0
        self._inode = inode
        self._hashed = hashlib.sha256()
        self._hashed_bytes = 0
        self._flushed_bytes = 0
        self._fd = _CLOSED

    def create(self, place: file_place.Place, name: str) -> None:
        """Make it, in the folder of `place`.

        Raises:
            OSError: The file system refused.
        """
        self._fd = os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=place.folder)
        self._inode = _inode(os.fstat(self._fd))

    def find(self) -> None:
        """Go on with what an earlier daemon received.

        Raises:
            LostError: It cannot be gone on with.
        """
        self.received = os.fstat(self._open()).st_size

    def rest(self) -> None:
        """Hold nothing open."""
        fd, self._fd = self._fd, _CLOSED
        if fd != _CLOSED:
            with contextlib.suppress(OSError):  # what it has to say, the commit's flush says again
                os.close(fd)

    def remove(self) -> None:
        """Remove it, if it is still there."""
        self.rest()
        with contextlib.suppress(OSError):
            os.unlink(self.path)  # noqa: PTH108 - text as it is

    def append(self, piece: memoryview) -> None:
        """Add what comes next.

        Raises:
            LostError: It cannot be gone on with.
            OSError: The file system refused; nothing of `piece` counts as received.
        """
        fd = self._open()
        done = 0
        try:
            while done < len(piece):
                done += os.pwrite(fd, piece[done:], self.received + done)
        except OSError:
            # What a full disk took of it could be all that is left for others.
            with contextlib.suppress(OSError):
                os.ftruncate(fd, self.received)
            raise
        if self._hashed_bytes == self.received:
            # While it is at hand; what came before us is read back by `digest`.
            self._hashed.update(piece)
            self._hashed_bytes += done
        self.received += done
        if self.received - self._flushed_bytes >= _CACHED_BYTES + _FLUSH_BYTES:
            # What was begun to be written at one call is let go of at the next.
            self._flushed_bytes = self.received - _CACHED_BYTES
            os.posix_fadvise(fd, 0, self._flushed_bytes, os.POSIX_FADV_DONTNEED)

    def digest(self) -> "file_slices.Slices[str]":
        """The sha256 of what was received.

        Raises:
            LostError: It is not there any more.
        """
        fd = self._open()
        while self._hashed_bytes < self.received:
            self._hash(fd)
            yield
        return self._hashed.hexdigest()

    def _hash(self, fd: int) -> None:
        wanted = min(_HASH_BYTES, self.received - self._hashed_bytes)
        piece = os.pread(fd, wanted, self._hashed_bytes)
        if not piece:
            raise LostError
        self._hashed.update(piece)
        self._hashed_bytes += len(piece)

    def dress(self, mode: int, owner: os.stat_result | None) -> None:
        """Give it this mode, and this owner where we may."""
        fd = self._open()
        ours = os.fstat(fd)
        if owner is not None and (ours.st_uid, ours.st_gid) != (owner.st_uid, owner.st_gid):
            with contextlib.suppress(PermissionError):
                os.fchown(fd, owner.st_uid, owner.st_gid)
        os.fchmod(fd, mode)

    @property
    def inode(self) -> tuple[int, int]:
        """Device and number; known once it is open."""
        return self._inode

    def flush(self) -> None:
        """Make it survive a loss of power, as long as it was received."""
        fd = self._open()
        if os.fstat(fd).st_size != self.received:
            os.ftruncate(fd, self.received)
        os.fsync(fd)

    def take_place(self, place: file_place.Place, *, is_new: bool) -> os.stat_result:
        """Become what is at `place`; `is_new`: only where nothing is. Returns its stat.

        Raises:
            FileExistsError: Something is there, and `is_new`.
            LostError: It is not where it was, or `place` is on another file system.
            OSError: The file system refused.
        """
        fd = self._open()
        try:
            if _inode(os.lstat(self.path)) != self._inode:
                raise LostError
            if is_new:
                file_changes.rename_to_nothing(self.path, place)
            else:
                os.rename(self.path, place.name, dst_dir_fd=place.folder)
        except OSError as error:
            if error.errno in {errno.EXDEV, errno.ENOENT}:
                raise LostError from error
            raise
        return os.fstat(fd)

    def _open(self) -> int:
        if self._fd == _CLOSED:
            try:
                fd = os.open(self.path, _FLAGS)
            except OSError as error:
                if error.errno in _TOUCHED:
                    raise LostError from error
                raise
            found = os.fstat(fd)
            is_known = found.st_uid == os.geteuid() or _inode(found) == self._inode
            is_one = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
            if not (is_known and is_one and found.st_size >= self.received):
                os.close(fd)
                raise LostError
            self._fd, self._inode = fd, _inode(found)
        return self._fd


def _inode(found: os.stat_result) -> tuple[int, int]:
    return (found.st_dev, found.st_ino)


def gap(doing: str, received: int) -> errors.BadOffset:
    """What an offset is answered that leaves a gap."""
    return errors.BadOffset(
        f"cannot {doing}: {received} bytes of it were received so far", data={"sizeBytes": received}
    )
