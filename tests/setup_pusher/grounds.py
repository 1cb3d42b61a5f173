"""A house on a database that exists already: one made inside a running loop could not be migrated on Postgres."""

import contextlib
import pathlib
from collections.abc import AsyncIterator

from paddock.bus import streams
from paddock.store import engine
from tests.support import connections, databases, house, nats_server, redis_server


@contextlib.asynccontextmanager
async def opened(folder: pathlib.Path, url: str) -> AsyncIterator[house.House]:
    """The ground, with streams and consumers made."""
    with nats_server.NatsServer(folder / "nats") as nats, redis_server.RedisServer() as redis:
        bus = connections.Connections(nats)
        try:
            await streams.ensure((await bus.service("bootstrap")).jetstream())
            async with engine.open_store(url, databases.box()) as store:
                yield house.House(folder, nats, redis, url, store, bus)
        finally:
            await bus.close()
