r"""What files are: `file.stat` and `file.list`.

Names are bytes to the file system: where they are no UTF-8, those bytes are shown as `\xff` and the name is also given as
base64. Blocks: what is long is written as slices (see `file_slices`).
"""

import base64
import grp
import hashlib
import itertools
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from typing import Final

from paddock.contracts import errors, files
from paddock.daemon import file_place, file_slices, paths

PAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of paths in one answer: names may have 255 bytes and paths 4096."""
OPEN_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Without O_NONBLOCK, opening a pipe waits for its writer."""
_HASH_BYTES: Final = 1024 * 1024
_YIELD_EVERY: Final = 64
_BATCH: Final = 2048
_KINDS: Final[dict[int, files.Kind]] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
}


def kind(mode: int) -> files.Kind:
    """In the words of the contract."""
    return _KINDS.get(stat.S_IFMT(mode), "other")


def version(found: os.stat_result) -> str:
    """Another one whenever the content may be another."""
    numbers = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return "-".join(f"{number:x}" for number in numbers)


def shown(name: str) -> str:
    """A name or path of `os` as text that can be sent."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


class Describer:
    """Makes `FileInfo`s; knows the names of users and groups it has asked for once."""

    def __init__(self) -> None:
        self._users: dict[int, str] = {}
        self._groups: dict[int, str] = {}

    def info(self, path: str, found: os.stat_result, *, target: str = "", sha256: str = "") -> files.FileInfo:
        """What is at `path`, an absolute one, by its stat."""
        name = path.rpartition("/")[2] or "/"
        text = shown(name)
        return files.FileInfo(
            path=shown(path),
            name=text,
            kind=kind(found.st_mode),
            size=found.st_size,
            mode=stat.S_IMODE(found.st_mode),
            modified_at_ms=found.st_mtime_ns // 1_000_000,
            version=version(found),
            user=_named(self._users, found.st_uid, lambda uid: pwd.getpwuid(uid).pw_name),
            group=_named(self._groups, found.st_gid, lambda gid: grp.getgrgid(gid).gr_name),
            target=shown(target),
            name_base64="" if text == name else base64.b64encode(os.fsencode(name)).decode(),
            sha256=sha256,
        )

    def entry(self, path: str, name: str, folder: int) -> files.FileInfo | None:
        """What is at `name` in an open folder, known as `path`; None when it is gone. A link is not followed."""
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(found.st_mode) else ""
        except OSError:
            return None
        return self.info(path, found, target=target)


def _named(known: dict[int, str], number: int, ask: Callable[[int], str]) -> str:
    name = known.get(number)
    if name is None:
        try:
            name = shown(ask(number))
        except KeyError:
            name = str(number)
        known[number] = name
    return name


def look(params: files.StatParams, home: str) -> "file_slices.Slices[files.FileInfo]":
    """`file.stat`.

    Raises:
        errors.Fault: There is nothing, or it cannot be looked at or read.
    """
    path, doing = paths.resolve(params.path, home), f"look at {params.path}"
    with file_place.refusals(doing):
        if params.digest:
            return (yield from _digested(path, doing, follow=params.follow))
        found = os.stat(path, follow_symlinks=params.follow)  # noqa: PTH116 - a link's own or its target's
        target = os.readlink(path) if stat.S_ISLNK(found.st_mode) else ""  # noqa: PTH115 - text as it is
    return Describer().info(path, found, target=target)


def _digested(path: str, doing: str, *, follow: bool) -> "file_slices.Slices[files.FileInfo]":
    fd = open_regular(path, doing, follow=follow)
    try:
        sha256 = yield from digest(fd)
        return Describer().info(path, os.fstat(fd), sha256=sha256)
    finally:
        os.close(fd)


def open_regular(path: str, doing: str, *, follow: bool = True, folder: int | None = None) -> int:
    """A regular file, open for reading; never waits for anybody.

    Raises:
        OSError: It cannot be opened.
        errors.IsADirectory: It is one.
        errors.BadPath: It is a pipe, device or socket.
    """
    fd = os.open(path, OPEN_FLAGS | (0 if follow else os.O_NOFOLLOW), dir_fd=folder)
    try:
        check_regular(os.fstat(fd), doing)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_regular(found: os.stat_result, doing: str) -> None:
    """Refuse what is no regular file, by its stat.

    Raises:
        errors.IsADirectory: It is one.
        errors.BadPath: It is a pipe, device or socket.
    """
    if stat.S_ISDIR(found.st_mode):
        raise errors.IsADirectory(f"cannot {doing}: it is a directory")
    if not stat.S_ISREG(found.st_mode):
        raise errors.BadPath(f"cannot {doing}: it is not a regular file")


def digest(fd: int) -> "file_slices.Slices[str]":
    """The sha256 of an open file, in hex."""
    hashed = hashlib.sha256()
    yield from hash_into(hashed, fd)
    return hashed.hexdigest()


def hash_into(hashed: "hashlib._Hash", fd: int, end: int | None = None) -> "file_slices.Slices[int]":
    """Add an open file to `hashed`, up to `end` or all of it; returns how many bytes there were."""
    at = 0
    while part := os.pread(fd, _HASH_BYTES if end is None else min(_HASH_BYTES, end - at), at):
        hashed.update(part)
        at += len(part)
        yield
    return at


def list_folder(params: files.ListParams, home: str) -> "file_slices.Slices[files.ListResult]":
    """`file.list`: one page, by name.

    Raises:
        errors.Fault: There is no such folder, or it cannot be read.
    """
    path = paths.resolve(params.path, home)
    with file_place.refusals(f"list {params.path}"):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names, is_last = yield from _page(folder, params.after, params.limit)
            entries, used = [], 0
            describer = Describer()
            for at, name in enumerate(names):
                entry = describer.entry(path.rstrip("/") + "/" + name, name, folder)
                if entry is not None:
                    entries.append(entry)
                used += len(path) + len(name)
                if used > PAGE_BYTES_MAX and at + 1 < len(names):
                    return files.ListResult(entries=entries, is_last=False)
                if at % _YIELD_EVERY == 0:
                    yield
        finally:
            os.close(folder)
    return files.ListResult(entries=entries, is_last=is_last)


def _page(folder: int, after: str, limit: int) -> "file_slices.Slices[tuple[list[str], bool]]":
    """The first `limit` names after `after`, and whether no more follow.

    By batches: sorting 100,000 names at once would keep the interpreter from everything else.
    """
    best: list[tuple[str, str]] = []
    is_last = True
    with os.scandir(folder) as scanned:
        for batch in _batches((shown(entry.name), entry.name) for entry in scanned):
            best = sorted([*best, *(pair for pair in batch if pair[0] > after)])
            # Never between two names that look the same: the next page begins after what was shown.
            end = limit
            while end < len(best) and best[end][0] == best[end - 1][0]:
                end += 1
            is_last = is_last and len(best) <= end
            del best[end:]
            yield
    return [name for _, name in best], is_last


def _batches(pairs: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    while batch := list(itertools.islice(pairs, _BATCH)):
        yield batch
