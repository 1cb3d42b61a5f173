"""One holder of a file at a time, by flock: the kernel lets go when the holder dies, however it dies.

The file is never removed and what stands in it decides nothing; it is the holder's pid, for people. Only the standard
library: the supervisor uses it too.
"""

import contextlib
import fcntl
import os


class TakenError(Exception):
    """Another process holds the lock."""


def take(path: str | os.PathLike[str]) -> int:
    """Take the lock and return its file descriptor; it is held until that is closed or the process ends.

    Children do not inherit it.

    Raises:
        TakenError: Another process holds it; the message says which, as far as the file tells.
        OSError: The file cannot be opened.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 32).decode("ascii", "replace").strip()
        os.close(fd)
        who = f"process {holder}" if holder.isdigit() else "another process"
        raise TakenError(f"cannot take {path}: {who} holds it") from None
    with contextlib.suppress(OSError):  # a full disk; the lock is held all the same
        os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % os.getpid())
    return fd
