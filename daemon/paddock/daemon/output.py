"""What a command wrote, on disk: one stream in segments of equal size, the oldest given up beyond a limit.

Segment `stdout.000002` holds the bytes from `2 * segment_bytes` on; only the newest is shorter than the others. The keeper
writes with `Spool`, whoever wants reads with `Reader` at the same time; a kill at any point leaves whole bytes in order.
The last `limit_bytes` are always there, and at most one segment more. Only the standard library: the keeper uses it.
"""

# ruff: noqa: PTH116, PTH208 - pathlib would be a third of the keeper's memory
import contextlib
import errno
import os

SEGMENTS = 16
"""A limit is cut into so many, within these bounds: few files, and never much more kept than the limit."""
SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX = 4 * 1024, 16 * 1024 * 1024
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})


class GivenUpError(Exception):
    """These bytes were written and are no longer kept."""

    def __init__(self, first_offset: int, size_bytes: int) -> None:
        super().__init__(f"the first byte kept is {first_offset}")
        self.first_offset = first_offset
        self.size_bytes = size_bytes


def segment_bytes_for(limit_bytes: int) -> int:
    """The size of the segments of a stream of which so much is kept."""
    return max(SEGMENT_BYTES_MIN, min(limit_bytes // SEGMENTS, SEGMENT_BYTES_MAX))


def segment_name(stream: str, index: int) -> str:
    return f"{stream}.{index:06d}"


class Spool:
    """The writing end of one stream."""

    __slots__ = (
        "_fd",
        "_first",
        "_folder_fd",
        "_is_gone",
        "_limit_bytes",
        "_segment_bytes",
        "_stream",
        "total_bytes",
    )

    def __init__(self, folder_fd: int, stream: str, *, segment_bytes: int, limit_bytes: int) -> None:
        """Nothing is made on disk before something is written.

        Args:
            folder_fd: Stays the caller's to close.
        """
        self._folder_fd = folder_fd
        self._stream = stream
        self._segment_bytes = segment_bytes
        self._limit_bytes = limit_bytes
        self._fd = -1
        self._first = 0
        self._is_gone = False
        self.total_bytes = 0
        """Written so far, kept or not."""

    @property
    def room_bytes(self) -> int:
        """How much can be written before the oldest is given up."""
        return max(0, self._limit_bytes - self.total_bytes)

    def write(self, data: memoryview) -> int:
        """Append `data`; returns how much of it was, which is less when the disk is full.

        When the folder was removed, everything is taken and nothing kept.

        Raises:
            OSError: Nothing could be written.
        """
        done = 0
        while done < len(data) and not self._is_gone:
            try:
                done += self._write_some(data[done:])
            except OSError:
                if not done:
                    raise
                return done
        if self._is_gone:
            self.total_bytes += len(data) - done
            return len(data)
        return done

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write_some(self, data: memoryview) -> int:
        index, within = divmod(self.total_bytes, self._segment_bytes)
        if (self._fd < 0 or not within) and not self._open(index):
            return 0
        written = os.write(self._fd, data[: self._segment_bytes - within])
        self.total_bytes += written
        if not (within + written) % self._segment_bytes:
            self.close()
            self._give_up_oldest()
        return written

    def _open(self, index: int) -> bool:
        self.close()
        try:
            self._fd = os.open(segment_name(self._stream, index), _WRITE, 0o600, dir_fd=self._folder_fd)
        except OSError as error:
            if error.errno not in _FOLDER_GONE:
                raise
            self._is_gone = True
            return False
        return True

    def _give_up_oldest(self) -> None:
        while (self._first + 1) * self._segment_bytes <= self.total_bytes - self._limit_bytes:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(segment_name(self._stream, self._first), dir_fd=self._folder_fd)
            self._first += 1


class Reader:
    """The reading end of one stream; not for two threads at once."""

    __slots__ = ("_fd", "_folder", "_index", "_segment_bytes", "_stream")

    def __init__(self, folder: "str | os.PathLike[str]", stream: str, segment_bytes: int) -> None:
        self._folder = os.fspath(folder)
        self._stream = stream
        self._segment_bytes = segment_bytes
        self._index = -1
        self._fd = -1

    def bounds(self) -> tuple[int, int]:
        """The offset of the first byte kept, and how many were written in all. Lists the folder.

        Raises:
            FileNotFoundError: The folder is gone.
        """
        while True:
            indexes = self._indexes()
            if not indexes:
                return 0, 0
            last = max(indexes)
            # A flood may have given up the newest of a moment ago; then the list is old.
            with contextlib.suppress(FileNotFoundError):
                size = os.stat(self._path(last)).st_size
                return min(indexes) * self._segment_bytes, last * self._segment_bytes + size

    def size(self) -> int:
        """All that was written so far, kept or not."""
        return self.bounds()[1]

    def first_offset(self) -> int:
        """The first byte still kept."""
        return self.bounds()[0]

    def read(self, offset: int, length: int) -> bytes:
        """What is there from `offset` on, at most `length` bytes; nothing at the end and beyond it.

        Raises:
            GivenUpError: The byte at `offset` is no longer kept.
            OSError: The disk refused.
        """
        parts: list[bytes] = []
        while length > 0:
            index, within = divmod(offset, self._segment_bytes)
            if not self._open(index):
                if parts:
                    break
                first, size = self.bounds()
                if offset < first:
                    raise GivenUpError(first, size)
                break
            part = os.pread(self._fd, min(length, self._segment_bytes - within), within)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = self._index = -1

    def _indexes(self) -> list[int]:
        prefix = f"{self._stream}."
        ends = (name[len(prefix) :] for name in os.listdir(self._folder) if name.startswith(prefix))
        return [int(end) for end in ends if end.isdigit()]

    def _open(self, index: int) -> bool:
        """Have this segment open; False when there is none."""
        if index == self._index:
            return True
        self.close()
        try:
            self._fd = os.open(self._path(index), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        self._index = index
        return True

    def _path(self, index: int) -> str:
        return f"{self._folder}/{segment_name(self._stream, index)}"
