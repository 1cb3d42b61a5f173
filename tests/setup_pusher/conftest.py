"""A machine with a real daemon on a real bus, and the view of it one run has."""

import contextlib
import pathlib
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from paddock.bus import clock
from paddock.setup_pusher import guest
from tests.setup_pusher import grounds
from tests.setup_pusher import machine as machines
from tests.support import connections, databases, house, nats_server


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nats_server.NatsServer]:
    """One for all: each test's machine has an id of its own."""
    with nats_server.NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
async def machine(nats: nats_server.NatsServer, tmp_path: pathlib.Path) -> AsyncIterator[machines.Machine]:
    """Booted, in its first generation."""
    bus = connections.Connections(nats)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(bus.close)
        made = await stack.enter_async_context(machines.on_the_bus(bus, tmp_path))
        await stack.enter_async_context(made.booted())
        yield made


@pytest.fixture
def view(machine: machines.Machine) -> Callable[..., guest.Guest]:
    """The machine as one claim of a run sees it; two views of one run are a takeover."""

    def make(run: int = 1, *, generation: int = 1, patience_s: float = 5.0) -> guest.Guest:
        return guest.Guest(
            machine, machine.sandbox(generation), run=run, wall=clock.SystemClock(), patience_s=patience_s
        )

    return make


@pytest.fixture
def kind() -> str:
    """Of database; a test that runs on both says so."""
    return "sqlite"


@pytest.fixture
def url(kind: str, tmp_path: pathlib.Path) -> Iterator[str]:
    with databases.database(kind, tmp_path) as made:
        yield made


@pytest.fixture
async def ground(url: str, tmp_path: pathlib.Path) -> AsyncIterator[house.House]:
    async with grounds.opened(tmp_path, url) as opened:
        yield opened
