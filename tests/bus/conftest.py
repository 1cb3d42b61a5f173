"""A bus for each test: its own server, and clients that are closed when the test ends."""

import pathlib
from collections.abc import AsyncIterator, Iterator

import pytest

from paddock.bus import streams
from tests.support import connections, nats_server


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
async def ready_bus(bus: connections.Connections) -> connections.Connections:
    """With streams and consumers."""
    await streams.ensure((await bus.service("bootstrap")).jetstream())
    return bus
