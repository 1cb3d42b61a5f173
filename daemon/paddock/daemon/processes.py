"""Processes known by number: whether the one that was started is still the one that runs.

A number alone may belong to another process by now; with its start time (in clock ticks since the host booted) and the
namespace it was seen in, it does not.
"""

import asyncio
import os
import pathlib
import signal
import time
from collections.abc import Callable

_BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")
_GONE = (FileNotFoundError, ProcessLookupError)


def start_ticks(pid: int) -> int:
    """When the process was started; 0 when it is gone or only waits to be reaped."""
    fields = _stat(pid)
    return 0 if not fields or fields[0] == "Z" else int(fields[19])


def age_s(ticks: int) -> float:
    """How long ago a process with this start time was started; no clock that is set can change it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def namespace() -> str:
    """The life of the host and the pid namespace: numbers from another one mean nothing here."""
    return f"{_BOOT_ID.read_text().strip()}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 - a magic link


def kill_group(pid: int, ticks: int, number: int = signal.SIGKILL) -> bool:
    """Send a signal, by default the one that kills, to what is left of the group that this process led.

    Returns:
        False when nothing was.

    The leader may be gone: while its group has members, its number is given to nobody else.
    """
    fields = _stat(pid)
    if fields and int(fields[19]) != ticks:
        return False
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def on_end(pid: int, ticks: int, tell: Callable[[], None]) -> bool:
    """Have the running loop call `tell` once the process, which need not be our child, has ended.

    Returns:
        False when it has ended already; `tell` is not called then.
    """
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    # Opened first, compared after: the number cannot change hands in between.
    if start_ticks(pid) != ticks or not ticks:
        os.close(fd)
        return False
    loop = asyncio.get_running_loop()

    def fire() -> None:
        loop.remove_reader(fd)
        os.close(fd)
        tell()

    loop.add_reader(fd, fire)
    return True


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; the name before it may hold anything."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except _GONE:
        return []
    return text.rpartition(")")[2].split()
