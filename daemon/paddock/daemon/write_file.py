"""`tool.writeFile`: the whole new file or the old one, never half of it.

Written beside its place and renamed over it. Survives a kill of the daemon; not a loss of power, as nothing is fsynced.
A symbolic link is followed, so what it points at is replaced and the link stays. Blocks: call it in a thread.
"""

import base64
import binascii
import contextlib
import hashlib
import os
import pathlib
import secrets
import stat

from paddock.contracts import daemon, errors
from paddock.daemon import paths

_PART_BYTES = 1024 * 1024
_PARENT_MODE = 0o755


def write(params: daemon.WriteFileParams, home: str) -> daemon.WriteFileResult:
    """Write the file, and the folders above it that are missing.

    Raises:
        errors.Fault: The path cannot be used, the content is not what `encoding` says, or the file system refused.
    """
    if params.path.endswith("/"):
        raise errors.IsADirectory(f"cannot write {params.path}: it names a directory")
    path = paths.resolve(params.path, home)
    content = _content(params)
    try:
        place = pathlib.Path(os.path.realpath(path))
        _check_replaceable(place)
        place.parent.mkdir(_PARENT_MODE, parents=True, exist_ok=True)
        digest = replace(place, content, params.mode)
    except OSError as error:
        raise paths.fault(error, f"write {params.path}") from error
    return daemon.WriteFileResult(path=path, bytes_written=len(content), sha256=digest)


def _content(params: daemon.WriteFileParams) -> bytes:
    try:
        if params.encoding == "base64":
            return base64.b64decode(params.content, validate=True)
        return params.content.encode()
    except (binascii.Error, UnicodeEncodeError):
        raise errors.InvalidParams(
            f"cannot write {params.path}: the content is not {params.encoding}"
        ) from None


def _check_replaceable(place: pathlib.Path) -> None:
    """Renaming over a device or a socket would take it away from everybody."""
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise errors.IsADirectory(f"cannot write {place}: it is a directory")
    if not stat.S_ISREG(mode):
        raise errors.BadPath(f"cannot write {place}: it is not a regular file")


def replace(place: pathlib.Path, content: bytes, mode: int) -> str:
    """Put `content` in place and return its sha256.

    Raises:
        OSError: The file system refused; what was in place still is.
    """
    # A name of its own length: the file's may be as long as names can be.
    temporary = place.with_name(f".paddock-{secrets.token_hex(8)}.tmp")
    digest = hashlib.sha256()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            view = memoryview(content)
            for begin in range(0, len(view), _PART_BYTES):
                part = view[begin : begin + _PART_BYTES]
                digest.update(part)
                _write_all(fd, part)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)
        temporary.rename(place)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return digest.hexdigest()


def _write_all(fd: int, part: memoryview) -> None:
    while part:
        part = part[os.write(fd, part) :]
