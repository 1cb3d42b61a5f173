"""`tool.readFile`: a part of a file, with the size and digest of the whole, all of one moment's file.

Only regular files: a pipe or device could keep us for ever. Blocks: call it in a thread.
"""

import base64
import hashlib
import os
import stat
from typing import Literal

from paddock.contracts import daemon, errors
from paddock.daemon import paths

CONTENT_BYTES_MAX = 32 * 1024 * 1024
"""Of one answer, which is held in memory several times over; a larger file is asked for in parts."""
_PART_BYTES = 1024 * 1024


def read(params: daemon.ReadFileParams, home: str) -> daemon.ReadFileResult:
    """Read `length` bytes from `offset`; beyond the end there is nothing, which is no error.

    Raises:
        errors.Fault: The path cannot be used, the file system refused, or the part is too large for one answer.
    """
    path = paths.resolve(params.path, home)
    try:
        # Without O_NONBLOCK, opening a pipe waits for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            mode = os.fstat(fd).st_mode
            _check_regular(params.path, mode)
            size, digest, content = _scan(fd, params)
        finally:
            os.close(fd)
    except OSError as error:
        raise paths.fault(error, f"read {params.path}") from error
    text, encoding = _text(content)
    return daemon.ReadFileResult(
        path=path,
        size=size,
        sha256=digest,
        mode=stat.S_IMODE(mode),
        offset=params.offset,
        content=text,
        encoding=encoding,
    )


def _check_regular(path: str, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise errors.IsADirectory(f"cannot read {path}: it is a directory")
    if not stat.S_ISREG(mode):
        raise errors.BadPath(f"cannot read {path}: it is not a regular file")


def _scan(fd: int, params: daemon.ReadFileParams) -> tuple[int, str, bytes]:
    """Size and digest of the whole file, and the part of it that was asked for, in one pass."""
    digest = hashlib.sha256()
    content = bytearray()
    at, end = 0, None if params.length is None else params.offset + params.length
    while part := os.read(fd, _PART_BYTES):
        digest.update(part)
        stop = len(part) if end is None else max(0, end - at)
        content += part[max(0, params.offset - at) : stop]
        if len(content) > CONTENT_BYTES_MAX:
            raise errors.PayloadTooLarge(
                f"cannot read more than {CONTENT_BYTES_MAX} bytes of {params.path} at once:"
                " ask for parts, by offset and length"
            )
        at += len(part)
    return at, digest.hexdigest(), bytes(content)


def _text(content: bytes) -> tuple[str, Literal["utf-8", "base64"]]:
    try:
        return content.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(content).decode("ascii"), "base64"
