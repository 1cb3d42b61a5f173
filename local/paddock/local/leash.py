"""A launcher that ties a child to its parent: when the parent dies, even by kill -9, the child gets SIGTERM.

Run as a script, `python leash.py <parent pid> <command> …`. It asks the kernel for the signal and then becomes the
command, so the child has the pid the parent saw. A preexec function would do the same inside the fork of a
process with threads, where Python code may deadlock; `setpriv` is not on every machine. Only the standard
library, and as little of it as can be.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        sys.exit(f"cannot tie {command[0]} to its parent: errno {ctypes.get_errno()}")
    if os.getppid() != parent:
        sys.exit(0)  # it died before we asked, so nobody would tell us
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
