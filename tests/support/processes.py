"""Looking at processes from outside, and waiting for what only they can bring about."""

import asyncio
import os
import pathlib
from collections.abc import Callable

WAIT_S = 10.0
_POLL_S = 0.005


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def open_fds() -> int:
    """How many files this process holds open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not opened


def has_children() -> bool:
    """Whether this process has a child, dead or alive."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


async def until(happened: Callable[[], object], *, timeout_s: float = WAIT_S) -> None:
    """Return when `happened()` is true.

    For what other processes do on their own: no event of ours tells of it.

    Raises:
        TimeoutError: It did not happen in time.
    """
    async with asyncio.timeout(timeout_s):
        while not happened():  # noqa: ASYNC110 - there is no event, see above
            await asyncio.sleep(_POLL_S)


def first_line(path: pathlib.Path) -> str:
    """The file's first line once it is complete; empty before."""
    text = path.read_text() if path.exists() else ""
    return text.partition("\n")[0] if "\n" in text else ""
