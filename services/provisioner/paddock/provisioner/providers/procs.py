"""Processes of this host that outlive whoever started them, told apart for certain.

A pid alone names nobody: it is reused. A pid with its start ticks, under one boot of the host, names one process for ever.
A zombie is dead: state Z has nothing left that could act. Signals go through a pidfd checked after it was opened.
"""

import asyncio
import contextlib
import os
import pathlib
import select
import signal
import time
from collections.abc import Iterator

import msgspec

_PROC = pathlib.Path("/proc")
_BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")


class Process(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One process for ever. `pid_namespace` is its own, such as `pid:[4026532181]`."""

    host_boot_id: str
    pid: int
    start_ticks: int
    pid_namespace: str


def host_boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def identify(pid: int) -> Process | None:
    """The process that has this pid now, or None when none is alive."""
    ticks = _start_ticks(pid)
    if ticks is None:
        return None
    try:
        namespace = str((_PROC / str(pid) / "ns/pid").readlink())
    except OSError:
        return None
    return Process(host_boot_id=host_boot_id(), pid=pid, start_ticks=ticks, pid_namespace=namespace)


def is_alive(process: Process) -> bool:
    return process.host_boot_id == host_boot_id() and _start_ticks(process.pid) == process.start_ticks


@contextlib.contextmanager
def handle(process: Process) -> Iterator[int | None]:
    """A pidfd of exactly this process, or None when it is gone."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (ProcessLookupError, OSError):
        yield None
        return
    try:
        # The pid may have been reused before it was opened, not after.
        yield descriptor if is_alive(process) else None
    finally:
        os.close(descriptor)


async def ended(process: Process) -> None:
    """Return once the process is dead.

    Cancellation: safe.
    """
    with handle(process) as descriptor:
        if descriptor is None:
            return
        loop = asyncio.get_running_loop()
        is_over = asyncio.Event()
        loop.add_reader(descriptor, is_over.set)
        try:
            await is_over.wait()
        finally:
            loop.remove_reader(descriptor)


def kill(process: Process, *, until_s: float) -> bool:
    """SIGKILL it and wait for its death until `until_s` (monotonic). Blocking.

    When it is the first of its pid namespace, all others in there are gone on return too: the kernel ends them before it.
    """
    with handle(process) as descriptor:
        if descriptor is None:
            return True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return wait_readable(descriptor, until_s=until_s)


def wait(process: Process, *, until_s: float) -> bool:
    """Wait for its death until `until_s` (monotonic); False when it lives on. Blocking."""
    with handle(process) as descriptor:
        return descriptor is None or wait_readable(descriptor, until_s=until_s)


def wait_readable(descriptor: int, *, until_s: float) -> bool:
    """Wait until there is something to read, or for a pidfd until the death; False at `until_s` (monotonic)."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, until_s - time.monotonic()) * 1000))


def everyone() -> list[int]:
    """Every pid visible here."""
    return [int(name) for name in os.listdir(_PROC) if name.isdigit()]  # noqa: PTH208 - names are all we need


def command_line(pid: int) -> list[str]:
    """Its argv; empty when it is gone or not ours to see."""
    return _zero_separated(pid, "cmdline")


def environment(pid: int) -> list[str]:
    """Its environment as it was started with; empty when it is gone or not ours to see."""
    return _zero_separated(pid, "environ")


def is_first_in_namespace(pid: int) -> bool:
    """Whether it is pid 1 of a pid namespace below ours."""
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return False
    levels = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
    return len(levels) > 1 and levels[-1] == "1"


def descendants(pid: int) -> list[int]:
    """Everything living below a process."""
    children: dict[int, list[int]] = {}
    for other in everyone():
        fields = _stat(other)
        if fields is not None and fields[0] not in "ZX":
            children.setdefault(int(fields[1]), []).append(other)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def inheritable() -> list[int]:
    """Descriptors of ours that would leak into a child: what whoever started us left open."""
    found = []
    for number in [int(name) for name in os.listdir(_PROC / "self/fd")]:  # noqa: PTH208 - names are all we need
        with contextlib.suppress(OSError):
            if os.get_inheritable(number):
                found.append(number)
    return found


def _zero_separated(pid: int, name: str) -> list[str]:
    try:
        content = (_PROC / str(pid) / name).read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in content.split(b"\0")[:-1]]


def _start_ticks(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def _stat(pid: int) -> list[str] | None:
    # The name in the second field may hold spaces and brackets; fields are counted from the last bracket.
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
