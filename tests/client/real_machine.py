"""A real daemon on a real bus behind a real gateway, and a client of it over a network that breaks."""

import contextlib
import os
import pathlib
import signal
from collections.abc import AsyncIterator

from paddock.client import client as gateway_client
from paddock.client import machine as machine_of
from paddock.contracts import phases
from tests.daemon import machine as daemons
from tests.gateway import door
from tests.support import cutting_proxy, house, processes


class RealMachine:
    """`machine` is the client's; `proxy` is what breaks on the way; `daemon` has the processes and their HOME."""

    def __init__(
        self,
        ground: house.House,
        machine: machine_of.Machine,
        proxy: cutting_proxy.CuttingProxy,
        daemon: daemons.Machine,
        registrar: daemons.Registrar,
    ) -> None:
        self.ground, self.machine, self.proxy, self.daemon = ground, machine, proxy, daemon
        self._registrar = registrar
        daemon.start("supervise")

    @property
    def home(self) -> pathlib.Path:
        return self.daemon.home

    async def until_ready(self, count: int = 1) -> None:
        await processes.until(lambda: len(self._registrar.readies) >= count)

    async def restart_daemon(self) -> None:
        """Kill it, and wait until another was started; what runs in the machine goes on."""
        ready = len(self._registrar.readies)
        os.kill(self.daemon.state()["pid"], signal.SIGKILL)
        await self.until_ready(ready + 1)


@contextlib.asynccontextmanager
async def opened(folder: pathlib.Path) -> AsyncIterator[RealMachine]:
    """All of it, fresh; ended with the block."""
    async with (
        house.opened(folder) as ground,
        door.opened(ground) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        machine_id = await gateway.machine_in(phases.Phase.ACTIVE)
        registrar = await stack.enter_async_context(
            daemons.Registrar().serving(await ground.bus.service("registrar"))
        )
        daemon = daemons.Machine(folder / "home")
        stack.callback(daemon.end)
        daemon.tell(ground.nats, f"{machine_id}-1")
        proxy = await stack.enter_async_context(
            cutting_proxy.CuttingProxy(int(gateway.url.rpartition(":")[2]))
        )
        client = await stack.enter_async_context(gateway_client.Client(proxy.url, gateway.token))
        made = RealMachine(ground, client.machine(machine_id), proxy, daemon, registrar)
        await made.until_ready()
        yield made
