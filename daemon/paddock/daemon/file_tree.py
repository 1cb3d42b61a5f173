"""Going through a folder and all below it, to change it.

One folder is open at a time, however deep the tree. Links are never followed. Going up again, it is checked that the
folder above is the one we came from: moved meanwhile, the work ends there and nothing outside is touched.
"""

import contextlib
import dataclasses
import errno
import itertools
import os
import pathlib
import stat
from typing import Final

from paddock.contracts import errors
from paddock.daemon import file_place, file_slices

BATCH: Final = 256
"""Names taken from a folder at once."""
_REFILLED_MAX: Final = 100
"""How often a folder is emptied that others go on filling."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ANY: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_EMPTY: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})


@dataclasses.dataclass(slots=True)
class Level:
    """A folder on the way down: its name in the one above, and the folders in it that are still to be entered."""

    name: str
    found: os.stat_result
    pending: list[str] = dataclasses.field(default_factory=list)
    refilled: int = 0


class Descent:
    """Where we are in a tree: one open folder, and the way back to the top. Close it."""

    def __init__(self, place: file_place.Place, doing: str) -> None:
        """Begin in the folder at `place`.

        Raises:
            OSError: It is no folder, or cannot be opened.
        """
        self._doing = doing
        self.folder = os.open(place.name, _FOLDER, dir_fd=place.folder)
        self.levels = [Level(place.name, os.fstat(self.folder))]

    def close(self) -> None:
        os.close(self.folder)

    @property
    def level(self) -> Level:
        """Of the open folder."""
        return self.levels[-1]

    @property
    def is_at_top(self) -> bool:
        return len(self.levels) == 1

    def enter(self, name: str) -> None:
        """Go down into `name`.

        Raises:
            OSError: It is no folder (a link is none), or cannot be opened.
            errors.InUse: Another file system is mounted there.
        """
        below = os.open(name, _FOLDER, dir_fd=self.folder)
        found = os.fstat(below)
        if found.st_dev != self.levels[0].found.st_dev:
            os.close(below)
            raise errors.InUse(f"cannot {self._doing}: another file system is mounted in it, on {name!r}")
        self._move(below)
        self.levels.append(Level(name, found))

    def leave(self) -> str:
        """Go up again; returns the name of the folder left.

        Raises:
            errors.Conflict: It was moved elsewhere meanwhile.
        """
        left = self.levels.pop()
        above = os.open("..", _FOLDER, dir_fd=self.folder)
        found, expected = os.fstat(above), self.level.found
        self._move(above)
        if (found.st_dev, found.st_ino) != (expected.st_dev, expected.st_ino):
            raise errors.Conflict(f"cannot {self._doing}: a folder in it was moved away meanwhile")
        return left.name

    def _move(self, folder: int) -> None:
        os.close(self.folder)
        self.folder = folder


def remove(place: file_place.Place, doing: str) -> "file_slices.Slices[None]":
    """Remove the folder at `place` with all that is in it.

    Raises:
        OSError: Something cannot be removed; what was removed before is gone.
        errors.Fault: As `Descent` says.
    """
    descent = Descent(place, doing)
    try:
        while True:
            yield from _go_down_emptying(descent)
            if descent.is_at_top:
                break
            _remove_left(descent, descent.leave())
    finally:
        descent.close()
    os.rmdir(place.name, dir_fd=place.folder)


def _go_down_emptying(descent: Descent) -> "file_slices.Slices[None]":
    """Remove what can be removed at once, entering what is not; ends in a folder that is empty."""
    while True:
        if not descent.level.pending:
            yield from _unlink_batches(descent)
        if not descent.level.pending:
            return
        name = descent.level.pending.pop()
        try:
            os.rmdir(name, dir_fd=descent.folder)
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            _unlink(descent, name)
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
            descent.enter(name)
        yield


def _unlink_batches(descent: Descent) -> "file_slices.Slices[None]":
    """Unlink what is in the open folder, up to the first batch with folders in it, which become pending."""
    pending = descent.level.pending
    while not pending and (found := _batch(descent.folder)):
        for name, is_folder in found:
            if is_folder:
                pending.append(name)
            else:
                _unlink(descent, name)
        yield


def _batch(folder: int) -> list[tuple[str, bool]]:
    with os.scandir(folder) as scanned:
        return [
            (entry.name, entry.is_dir(follow_symlinks=False)) for entry in itertools.islice(scanned, BATCH)
        ]


def _unlink(descent: Descent, name: str) -> None:
    try:
        os.unlink(name, dir_fd=descent.folder)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        descent.level.pending.append(name)


def _remove_left(descent: Descent, name: str) -> None:
    """Remove the folder just left; one that was filled again meanwhile is to be emptied again."""
    try:
        os.rmdir(name, dir_fd=descent.folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        level = descent.level
        if error.errno not in _NOT_EMPTY or level.refilled >= _REFILLED_MAX:
            raise
        level.refilled += 1
        level.pending.append(name)


def chmod(place: file_place.Place, mode: int, doing: str) -> "file_slices.Slices[None]":
    """Set the mode of the folder at `place` and of all below it but links.

    A folder gets its mode after what is in it, or before where it could not be entered otherwise: so a mode that shuts
    folders does not shut us out.

    Raises:
        OSError: Something may not be changed.
        errors.Fault: As `Descent` says.
    """
    try:
        descent = Descent(place, doing)
    except PermissionError:
        chmod_one(place, mode)
        descent = Descent(place, doing)
    try:
        yield from _chmod_entries(descent, mode)
        while descent.level.pending or not descent.is_at_top:
            if descent.level.pending:
                yield from _chmod_below(descent, descent.level.pending.pop(), mode)
            else:
                name = descent.leave()
                chmod_one(file_place.Place(descent.folder, name), mode)
    finally:
        descent.close()
    chmod_one(place, mode)


def _chmod_below(descent: Descent, name: str, mode: int) -> "file_slices.Slices[None]":
    try:
        descent.enter(name)
    except PermissionError:
        chmod_one(file_place.Place(descent.folder, name), mode)
        descent.enter(name)
    except (FileNotFoundError, NotADirectoryError):
        return
    yield from _chmod_entries(descent, mode)


def _chmod_entries(descent: Descent, mode: int) -> "file_slices.Slices[None]":
    with os.scandir(descent.folder) as scanned:
        for entry in scanned:
            if entry.is_dir(follow_symlinks=False):
                descent.level.pending.append(entry.name)
            else:
                chmod_one(file_place.Place(descent.folder, entry.name), mode)
            yield


def chmod_one(place: file_place.Place, mode: int) -> None:
    """Set the mode of what is at `place`; a link, and what is gone, is left alone."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(place.name, _ANY, dir_fd=place.folder)
        try:
            # By the open file: the name may lead to a link by now.
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                pathlib.Path(f"/proc/self/fd/{fd}").chmod(mode)
        finally:
            os.close(fd)
