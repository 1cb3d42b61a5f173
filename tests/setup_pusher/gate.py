"""Holding `git clone` in a machine until a test lets it go."""

import pathlib
import shutil

from tests.setup_pusher import machine as machines
from tests.support import processes

SCRIPT = """#!/bin/sh
case " $* " in
*" clone "*)
    echo $$ > "{folder}/waiting"
    while [ ! -e "{folder}/open" ]; do sleep 0.01; done ;;
esac
exec {git} "$@"
"""


class Gate:
    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    async def reached(self) -> None:
        """A clone stands at the gate."""
        await processes.until(lambda: processes.first_line(self._folder / "waiting"))

    async def left(self) -> None:
        """The clone that reached the gate was killed."""
        await processes.until(lambda: not self.is_waiting())

    def is_waiting(self) -> bool:
        """Whether the clone that reached the gate is still there."""
        return processes.is_running(int(processes.first_line(self._folder / "waiting")))

    def open(self) -> None:
        (self._folder / "open").touch()

    def lift(self) -> None:
        """Hold no later clone; the one at the gate stays."""
        script = self._folder / "git"
        script.unlink()  # a shell reads its script as it goes; the one at the gate keeps the old file
        script.write_text(f'#!/bin/sh\nexec {shutil.which("git")} "$@"\n')
        script.chmod(0o755)


def hold_clones(machine: machines.Machine) -> Gate:
    """Put a `git` before the real one that waits before it clones."""
    script = machine.bin / "git"
    script.write_text(SCRIPT.format(folder=machine.bin, git=shutil.which("git")))
    script.chmod(0o755)
    return Gate(machine.bin)
