"""Changes of what is there: `file.mkdir`, `file.move`, `file.remove` and `file.chmod`.

Each happens in a folder held open (see `file_place`). Nothing here follows a link at the end of a path but `chmod`. The
root, and folders that hold the daemon's own, are neither moved nor removed.
"""

import ctypes
import errno
import functools
import os
import stat
import threading
from collections.abc import Callable
from typing import Any

from paddock.contracts import errors, files, rpc
from paddock.daemon import file_info, file_place, file_slices, file_tree, paths

REPLACING = threading.Lock()
"""Held from the last look at what will be replaced or removed to doing so: of two that expect the same, one wins."""
_RENAME_NOREPLACE = 1
_HERE = -100
"""AT_FDCWD."""
_NO_SUCH_CALL = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})


def mkdir(params: files.MkdirParams, home: str) -> "file_slices.Slices[files.FileInfo]":
    """`file.mkdir`; the mode is exactly the one given, whatever the umask.

    Raises:
        errors.Fault: It is there already, or cannot be made.
    """
    path, doing = paths.resolve(params.path, home), f"make {params.path}"
    with file_place.at(path, doing=doing, parents=params.parents) as place:
        found = place.look()
        if found is None:
            file_place.check_new(place.name, doing)
            os.mkdir(place.name, 0o700, dir_fd=place.folder)
            file_tree.chmod_one(place, params.mode)
        elif not params.parents or not _leads_to_folder(place):
            raise errors.PathExists(f"cannot {doing}: it exists already")
        yield
    return file_info.Describer().info(path, os.stat(path))  # noqa: PTH116 - of the same result type


def _leads_to_folder(place: file_place.Place) -> bool:
    return stat.S_ISDIR(os.stat(place.name, dir_fd=place.folder).st_mode)


def move(params: files.MoveParams, home: str, own: str) -> "file_slices.Slices[files.FileInfo]":
    """`file.move`: one rename, so all of it or nothing; `expected_sha256` is of what is moved.

    Raises:
        errors.BadPath: `to` is on another file system, or below what is moved.
        errors.Fault: Something is in the way, or the file system refused.
    """
    path, to = paths.resolve(params.path, home), paths.resolve(params.to, home)
    doing = f"move {params.path} to {params.to}"
    with file_place.at(path, doing=doing) as source, file_place.at(to, doing=doing) as target:
        _check_ours(path, source, own, doing)
        found = _existing(source, doing)
        if not stat.S_ISDIR(found.st_mode) and params.to.endswith("/"):
            raise errors.NotADirectory(f"cannot {doing}: what is moved is not a directory")
        file_place.check_new(target.name, doing)
        check = yield from expect(source, params.expected_sha256, doing)
        with REPLACING:
            check()
            _rename(source, target, doing, overwrite=params.overwrite)
        moved = file_info.Describer().entry(to, target.name, target.folder)
    if moved is None:
        raise errors.NoSuchPath(f"{params.to} was moved there, and is gone again")
    return moved


def _rename(source: file_place.Place, target: file_place.Place, doing: str, *, overwrite: bool) -> None:
    there = target.look()
    try:
        if overwrite:
            if there is not None and file_info.kind(there.st_mode) == "other":
                raise errors.BadPath(f"cannot {doing}: a device, pipe or socket would be replaced")
            os.rename(source.name, target.name, src_dir_fd=source.folder, dst_dir_fd=target.folder)
        else:
            rename_to_nothing(source.name, target, folder=source.folder)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise errors.BadPath(
                f"cannot {doing}: they are on different file systems; copy it and remove the old one"
            ) from error
        if error.errno == errno.EINVAL:
            raise errors.BadPath(f"cannot {doing}: it would lie in itself") from error
        raise


def rename_to_nothing(name: str, target: file_place.Place, *, folder: int | None = None) -> None:
    """Rename `name` in `folder` to where nothing may be, in one step where the file system can.

    Raises:
        FileExistsError: Something is there.
        OSError: The file system refused.
    """
    if target.look() is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    rename = _renameat2()
    number = errno.ENOSYS
    if rename is not None:
        source = _HERE if folder is None else folder
        to = os.fsencode(target.name)
        if rename(source, os.fsencode(name), target.folder, to, _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
    if number not in _NO_SUCH_CALL:
        raise OSError(number, os.strerror(number))
    os.rename(name, target.name, src_dir_fd=folder, dst_dir_fd=target.folder)


@functools.cache
def _renameat2() -> Callable[..., Any] | None:
    # The one call that the standard library lacks; see rename(2).
    return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def remove(params: files.RemoveParams, home: str, own: str) -> "file_slices.Slices[rpc.Done]":
    """`file.remove`.

    Raises:
        errors.Fault: There is nothing, it may not go, or something below could not be removed.
    """
    path, doing = paths.resolve(params.path, home), f"remove {params.path}"
    with file_place.at(path, doing=doing) as place:
        _check_ours(path, place, own, doing)
        found = _existing(place, doing)
        check = yield from expect(place, params.expected_sha256, doing)
        if not stat.S_ISDIR(found.st_mode):
            if params.path.endswith("/"):
                raise errors.NotADirectory(f"cannot {doing}: it is not a directory")
            with REPLACING:
                check()
                os.unlink(place.name, dir_fd=place.folder)
        elif params.recursive:
            yield from file_tree.remove(place, doing)
        else:
            os.rmdir(place.name, dir_fd=place.folder)
    return rpc.Done()


def chmod(params: files.ChmodParams, home: str) -> "file_slices.Slices[files.FileInfo]":
    """`file.chmod`; of a link, its target's.

    Raises:
        errors.Fault: There is nothing, or it may not be changed.
    """
    path, doing = paths.resolve(params.path, home), f"change the mode of {params.path}"
    with file_place.at(path, doing=doing, follow=True) as place:
        found = _existing(place, doing)
        if params.recursive and stat.S_ISDIR(found.st_mode):
            yield from file_tree.chmod(place, params.mode, doing)
        else:
            file_tree.chmod_one(place, params.mode)
        return file_info.Describer().info(path, place.look() or found)


def _existing(place: file_place.Place, doing: str) -> os.stat_result:
    found = place.look()
    if found is None:
        raise errors.NoSuchPath(f"cannot {doing}: it does not exist")
    return found


def _check_ours(path: str, place: file_place.Place, own: str, doing: str) -> None:
    """Without its own folder the daemon would lose what it promised to remember."""
    whole = f"{place.folder_path().rstrip('/')}/{place.name}"
    if place.name == "." or f"{own}/".startswith(f"{whole}/"):
        raise errors.BadPath(
            f"cannot {doing}: {'it is the root' if path == '/' else 'the daemon lives in it'}"
        )


def expect(
    place: file_place.Place, expected: str | None, doing: str
) -> "file_slices.Slices[Callable[[], None]]":
    """Check that what is at `place` is what was expected; the result checks cheaply that it still is.

    Raises:
        errors.Conflict: It is not; `data` has the digest of what is there, or `absent`.
    """
    if expected is None:
        return lambda: None
    before, actual = yield from _actual(place, doing)

    def check() -> None:
        found = place.look()
        if (None if found is None else file_info.version(found)) != before:
            raise errors.Conflict(f"cannot {doing}: it changed in this very moment")

    if actual != expected:
        raise errors.Conflict(
            f"cannot {doing}: something else is there than expected", data={"sha256": actual}
        )
    return check


def _actual(place: file_place.Place, doing: str) -> "file_slices.Slices[tuple[str | None, str]]":
    try:
        fd = file_info.open_regular(place.name, doing, follow=False, folder=place.folder)
    except FileNotFoundError:
        return None, files.ABSENT
    except (errors.IsADirectory, errors.BadPath) as fault:
        raise errors.Conflict(f"cannot {doing}: what is there is no file") from fault
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise errors.Conflict(f"cannot {doing}: what is there is a link") from error
    try:
        before = file_info.version(os.fstat(fd))
        return before, (yield from file_info.digest(fd))
    finally:
        os.close(fd)
