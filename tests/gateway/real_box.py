"""A machine that is one: the real supervisor and daemon in a HOME of their own, behind the gateway of a test."""

import contextlib
import os
import pathlib
import signal
from collections.abc import AsyncIterator

from paddock.contracts import phases
from tests.daemon import machine as daemons
from tests.gateway import door
from tests.support import processes


class RealBox:
    """`machine` is its id at the gateway, `home` its home."""

    def __init__(self, machine: str, daemon: daemons.Machine, registrar: daemons.Registrar) -> None:
        self.machine, self._daemon, self._registrar = machine, daemon, registrar
        self._supervisor = daemon.start("supervise")

    @property
    def home(self) -> pathlib.Path:
        return self._daemon.home

    async def until_ready(self, count: int = 1) -> None:
        await processes.until(lambda: len(self._registrar.readies) >= count)

    async def kill_daemon(self) -> None:
        """Kill the daemon with -9; returns when its successor is ready."""
        count = len(self._registrar.readies)
        os.kill(daemons.daemon_pid(self._supervisor), signal.SIGKILL)
        await self.until_ready(count + 1)


@contextlib.asynccontextmanager
async def running(gateway: door.Door, folder: pathlib.Path) -> AsyncIterator[RealBox]:
    """One that is ready, until the block ends."""
    machine = await gateway.machine_in(phases.Phase.ACTIVE)
    async with daemons.Registrar().serving(await gateway.ground.bus.service("registrar")) as registrar:
        daemon = daemons.Machine(folder / "home")
        daemon.tell(gateway.ground.nats, f"{machine}-1")
        try:
            box = RealBox(machine, daemon, registrar)
            await box.until_ready()
            yield box
        finally:
            daemon.end()
