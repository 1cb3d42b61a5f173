"""What really runs on this host and is on its disk, seen without the control plane and without its database."""

import collections
import dataclasses
import os
import pathlib

from paddock.provisioner.providers import procs

SUPERVISE = ["-I", "-m", "paddock.daemon", "supervise", "--sandbox"]
RUN = ["-I", "-m", "paddock.daemon", "run"]


@dataclasses.dataclass(frozen=True, slots=True)
class Sandbox:
    """One supervisor that is alive, and the daemons below it."""

    sandbox_id: str
    pid: int
    start_ticks: int
    daemons: tuple[int, ...]

    @property
    def external_id(self) -> str:
        """As the provider names it."""
        return f"pid-{self.pid}-{self.start_ticks}"

    @property
    def machine(self) -> str:
        return self.sandbox_id.rpartition("-")[0]


def sandboxes(data: pathlib.Path, known: set[str]) -> list[Sandbox]:
    """Every living sandbox of `known` machines, and any other that was started on this data folder."""
    alive = [process for pid in procs.everyone() if (process := procs.identify(pid)) is not None]
    daemons: dict[int, list[int]] = collections.defaultdict(list)
    for process in alive:
        if procs.command_line(process.pid)[1:5] == RUN:
            daemons[parent(process.pid)].append(process.pid)
    found = []
    for process in alive:
        words = procs.command_line(process.pid)
        if words[1:6] != SUPERVISE:
            continue
        one = Sandbox(words[6], process.pid, process.start_ticks, tuple(daemons[process.pid]))
        if one.machine in known or _is_of(data, process.pid):
            found.append(one)
    return sorted(found, key=lambda one: one.sandbox_id)


def launchers(data: pathlib.Path) -> list[int]:
    """Outer bwraps of this data folder: one for each sandbox that is one."""
    return [
        pid
        for pid in procs.everyone()
        if (words := procs.command_line(pid))
        and words[0].endswith("bwrap")
        and any(str(data) in word for word in words)
        and procs.identify(pid) is not None
    ]


def parent(pid: int) -> int:
    """0 when it is gone."""
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _is_of(data: pathlib.Path, pid: int) -> bool:
    """Whether it was started on this data folder: its parent's arguments or its own HOME are in there."""
    words = [*procs.command_line(parent(pid)), *procs.environment(pid)]
    return any(str(data) in word for word in words)


def homes(data: pathlib.Path) -> list[str]:
    """Machines with a HOME on disk."""
    top = data / "machines"
    return sorted(os.listdir(top)) if top.exists() else []  # noqa: PTH208 - names are all we need


def home(data: pathlib.Path, machine: str) -> pathlib.Path:
    return data / "machines" / machine / "home"
