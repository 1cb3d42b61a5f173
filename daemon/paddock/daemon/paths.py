"""Paths that callers send, and what the file system's refusals are called in the catalogue."""

import errno
import os

from paddock.contracts import errors

_FAULTS: dict[int, type[errors.Fault]] = {
    errno.ENOENT: errors.NoSuchPath,
    errno.EACCES: errors.PermissionDenied,
    errno.EPERM: errors.PermissionDenied,
    errno.EISDIR: errors.IsADirectory,
    errno.ENOTDIR: errors.NotADirectory,
    errno.EEXIST: errors.NotADirectory,
    errno.ENOSPC: errors.DiskFull,
    errno.EDQUOT: errors.DiskFull,
    errno.EROFS: errors.ReadOnly,
    errno.ENAMETOOLONG: errors.BadPath,
    errno.ELOOP: errors.BadPath,
    errno.ENXIO: errors.BadPath,
}


def resolve(path: str, home: str) -> str:
    """The absolute path meant by `path`, which is absolute or under `~`.

    Raises:
        errors.BadPath: It is neither, or holds a NUL byte or a `..`.
    """
    if "\0" in path:
        raise errors.BadPath("cannot use this path: it holds a NUL byte")
    if path == "~" or path.startswith("~/"):
        path = home + path[1:]
    elif path.startswith("~"):
        raise errors.BadPath(f"cannot use the path {path!r}: only ~ itself is known, not ~user")
    if not path.startswith("/"):
        raise errors.BadPath(f"cannot use the path {path!r}: it must be absolute or begin with ~/")
    if ".." in path.split("/"):
        raise errors.BadPath(f"cannot use the path {path!r}: it holds '..'")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise errors.BadPath("cannot use this path: it is not valid Unicode") from None
    return os.path.normpath(path)


def fault(error: OSError, doing: str) -> errors.Fault:
    """The fault for a refusal of the file system; `doing` is such as `write /a/b`."""
    kind = _FAULTS.get(error.errno or 0, errors.InputOutput)
    # strerror is libc's own sentence about the number: no path, no content.
    return kind(f"cannot {doing}: {(error.strerror or 'unknown error').lower()}", detail=repr(error))
