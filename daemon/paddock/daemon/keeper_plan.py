"""What a command is to be started with, checked and in the form the kernel takes, and the search for its program."""

# ruff: noqa: PTH118 - pathlib would be a third of the keeper's memory
import errno
import os
from collections.abc import Callable, Sequence

_PATH = b"/usr/local/bin:/usr/bin:/bin"
"""Where a command is looked for when its environment has no PATH."""
_SCARCE = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
"""The machine has no more of something; no fault of the file."""


class BadRequestError(Exception):
    """No process can be given this; `what` is the member that is at fault."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class FailedError(Exception):
    """It could not be started: `what` is `cwd`, `user`, `command`, `interpreter` or `spawn`, and `errno` says why."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(f"{what} {number}")
        self.what = what
        self.errno = number


class Plan:
    """One command as it is to be started."""

    __slots__ = ("argv", "cwd", "env", "gid", "groups", "uid")

    def __init__(
        self,
        argv: Sequence[str],
        env: "dict[str, str]",
        cwd: str,
        *,
        uid: int | None = None,
        gid: int | None = None,
        groups: Sequence[int] = (),
    ) -> None:
        """Check it. `uid` and `gid` None are the keeper's own; so are the groups then.

        Raises:
            BadRequestError: A part cannot be given to a process.
        """
        self.argv = [_encoded(one, "argv") for one in argv]
        if not self.argv or not self.argv[0]:
            raise BadRequestError("argv")
        if any(not name or "=" in name for name in env):
            raise BadRequestError("env")
        self.env = {_encoded(name, "env"): _encoded(value, "env") for name, value in env.items()}
        self.cwd = _encoded(cwd, "cwd")
        if (uid is None) != (gid is None):
            raise BadRequestError("user")  # half of what we are would stay
        self.uid, self.gid, self.groups = uid, gid, list(groups)

    def run(self, execute: Callable[[bytes], int]) -> int:
        """Have its program executed from the working folder: found on PATH unless its name has a slash.

        As execvp does it: a file that may not be run is only the reason when no other is found.

        Args:
            execute: Runs this file, or raises OSError.

        Raises:
            FailedError: No file could be run.
        """
        failed = FailedError("command", errno.ENOENT)
        for file in self._candidates():
            try:
                return execute(file)
            except OSError as error:
                if error.errno in _SCARCE:
                    raise FailedError("spawn", error.errno) from error
                if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.EACCES}:
                    raise FailedError("command", error.errno or 0) from error
                missing = error.errno == errno.ENOENT and os.access(file, os.F_OK)
                if failed.errno == errno.ENOENT:
                    failed = FailedError("interpreter" if missing else "command", error.errno)
        raise failed

    def _candidates(self) -> list[bytes]:
        program = self.argv[0]
        if b"/" in program:
            return [program]
        folders = self.env.get(b"PATH", _PATH).split(b":")
        files = [os.path.join(folder, program) for folder in folders]
        # To try one that is not there costs half a process.
        return [file for file in files if os.access(file, os.F_OK)]


def _encoded(text: str, what: str) -> bytes:
    try:
        encoded = os.fsencode(text)
    except (UnicodeEncodeError, TypeError):
        raise BadRequestError(what) from None
    if b"\0" in encoded:
        raise BadRequestError(what)
    return encoded
