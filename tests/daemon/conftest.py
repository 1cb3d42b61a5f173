"""A machine in a HOME of its own, and a bus for it."""

import pathlib
from collections.abc import AsyncIterator, Iterator

import pytest

from paddock.bus import caller, clock
from tests.daemon import commands as of_commands
from tests.daemon import machine as machines
from tests.support import connections, nats_server, processes


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def machine(home: pathlib.Path) -> Iterator[machines.Machine]:
    made = machines.Machine(home)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[nats_server.NatsServer]:
    with nats_server.NatsServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def bus(server: nats_server.NatsServer) -> AsyncIterator[connections.Connections]:
    opened = connections.Connections(server)
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
async def registrar(bus: connections.Connections) -> AsyncIterator[machines.Registrar]:
    async with machines.Registrar().serving(await bus.service("registrar")) as serving:
        yield serving


@pytest.fixture
async def asking(bus: connections.Connections) -> AsyncIterator[caller.Caller]:
    """A service that asks daemons."""
    nc = await bus.service("prober")
    async with caller.Caller(nc, caller_id="prober-x1", clock=clock.SystemClock(), held_reply_s=1) as made:
        yield made


@pytest.fixture
async def commands(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> of_commands.Commands:
    """A daemon under its supervisor that says it is ready, and whoever starts commands in it."""
    machine.tell(server)
    supervisor = machine.start("supervise")
    await processes.until(lambda: registrar.readies)
    return of_commands.Commands(machine, supervisor, asking, registrar)
