"""Files that hold secrets: written whole or not at all, readable by their owner only.

A reader sees the old content or the new, never half of it; a kill -9 leaves one of the two. Not for large
files.
"""

import os
import pathlib
import secrets


def write_private(
    path: pathlib.Path, content: str | bytes, *, mode: int = 0o600, outlives_power: bool = True
) -> None:
    """Replace `path` with `content` in one step; its directory must exist.

    With `outlives_power` False it survives a kill -9 but not a power cut: for what a reboot makes void anyway.

    Raises:
        OSError: The disk is full, or the directory is missing or not ours. `path` is as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    # O_EXCL and the mode at birth: at no moment may another user open it.
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)  # whatever the umask took away
            stream.write(data)
            if outlives_power:
                stream.flush()
                os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if outlives_power:
        _sync_directory(path.parent)


def _sync_directory(directory: pathlib.Path) -> None:
    """Make the rename itself survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
