"""Where a change takes place: a folder, held open, and a name in it.

Whatever becomes of the path meanwhile, the change happens in that folder and nowhere else. Links on the way are followed,
except those of /proc, which lead to whatever a process has open and not to a path: a change through one is refused.
Blocks: use it in a thread.
"""

import contextlib
import dataclasses
import errno
import os
import pathlib
import stat
from collections.abc import Iterator

from paddock.contracts import errors
from paddock.daemon import paths

PARENT_MODE = 0o755
LINKS_MAX = 40
"""As the kernel's own limit."""
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FAULTS: dict[int, type[errors.Fault]] = {
    errno.EEXIST: errors.PathExists,
    errno.ENOTEMPTY: errors.NotEmpty,
    errno.EBUSY: errors.InUse,
    errno.ETXTBSY: errors.InUse,
}


def fault(error: OSError, doing: str) -> errors.Fault:
    """As `paths.fault`, for what may also find something in its way."""
    kind = _FAULTS.get(error.errno or 0)
    if kind is None:
        return paths.fault(error, doing)
    return kind(f"cannot {doing}: {os.strerror(error.errno or 0).lower()}", detail=repr(error))


@contextlib.contextmanager
def refusals(doing: str) -> Iterator[None]:
    """What the file system refuses in the block is raised as a fault: `cannot {doing}: …`."""
    try:
        yield
    except OSError as error:
        raise fault(error, doing) from error


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """`name` in the open folder `folder`; `.` is the folder itself, for the root."""

    folder: int
    name: str

    def look(self) -> os.stat_result | None:
        """What is there, a link not followed; None for nothing."""
        try:
            return os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def folder_path(self) -> str:
        """The folder's path, without links, as it is now."""
        return str(pathlib.Path(f"/proc/self/fd/{self.folder}").readlink())

    def sync(self) -> None:
        """Make a change of the folder itself survive a loss of power."""
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.folder)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


@contextlib.contextmanager
def at(path: str, *, doing: str, follow: bool = False, parents: bool = False) -> Iterator[Place]:
    """The place of an absolute path (of `paths.resolve`), open during the block.

    Args:
        path: What is there may be missing; the folders above may not.
        doing: For messages: `write /a/b`.
        follow: Where the path is a link, the place is that of its target.
        parents: Make the folders above that are missing.

    Raises:
        errors.Fault: It leads nowhere; and for any OSError of the block.
    """
    with refusals(doing):
        walk = _Walk(path, doing, follow=follow, parents=parents)
        try:
            yield walk.place()
        finally:
            os.close(walk.folder)


class _Walk:
    """On the way along one path: the folder that was reached, and the names still to come, last first."""

    def __init__(self, path: str, doing: str, *, follow: bool, parents: bool) -> None:
        self._doing = doing
        self._follow = follow
        self._parents = parents
        self._ahead = _names(path)
        self._links = 0
        self._proc = _device("/proc")
        self.folder = os.open("/", _FOLDER)

    def place(self) -> Place:
        name = "."
        while self._ahead:
            name = self._ahead.pop()
            is_last = not self._ahead
            if is_last and not self._follow:
                break
            found = Place(self.folder, name).look()
            if found is not None and stat.S_ISLNK(found.st_mode):
                self._turn(name, found)
                name = "."
            elif not is_last:
                self._enter(name, found)
        return Place(self.folder, name)

    def _turn(self, name: str, link: os.stat_result) -> None:
        """Go on where a link points to."""
        self._links += 1
        if self._links > LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if link.st_dev == self._proc:
            raise errors.BadPath(f"cannot {self._doing}: the path leads through a link of /proc")
        target = os.readlink(name, dir_fd=self.folder)
        self._ahead += _names(target)
        if target.startswith("/"):
            self._move(os.open("/", _FOLDER))

    def _enter(self, name: str, found: os.stat_result | None) -> None:
        if found is None and self._parents:
            check_new(name, self._doing)
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, PARENT_MODE, dir_fd=self.folder)
        self._move(os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self.folder))

    def _move(self, folder: int) -> None:
        before, self.folder = self.folder, folder
        os.close(before)


def check_new(name: str, doing: str) -> None:
    """Refuse names that would break whatever lists them; what has such a name already can be read and removed.

    Raises:
        errors.BadPath: It holds a control character.
    """
    if any(character < " " or character == "\x7f" for character in name):
        raise errors.BadPath(f"cannot {doing}: the name {name!r} holds a control character")


def _names(path: str) -> list[str]:
    return [name for name in reversed(path.split("/")) if name not in {"", "."}]


def _device(path: str) -> int:
    try:
        return pathlib.Path(path).stat().st_dev
    except OSError:
        return -1
