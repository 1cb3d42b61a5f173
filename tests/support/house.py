"""A whole ground for service tests: bus with streams, Redis and a database, all real, and contexts for services on it."""

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from paddock.bus import files, lifecycle, streams
from paddock.store import engine, process, settings
from tests.support import connections, databases, nats_server, redis_server

SettingsT = TypeVar("SettingsT", bound=settings.ServiceSettings)


class House:
    """What services share. `settings_for` gives what one service would be told; `serving` runs it until the block ends."""

    def __init__(
        self,
        folder: pathlib.Path,
        nats: nats_server.NatsServer,
        redis: redis_server.RedisServer,
        url: str,
        store: engine.Store,
        bus: connections.Connections,
    ) -> None:
        self.folder, self.nats, self.redis, self.url, self.store, self.bus = (
            folder,
            nats,
            redis,
            url,
            store,
            bus,
        )

    def settings_for(self, kind: type[SettingsT], **more: Any) -> SettingsT:
        creds = self.folder / f"{kind.service}.creds"
        if not creds.exists():
            name: Any = kind.service
            files.write_private(creds, self.nats.realm.service_creds(name).encode())
        keys = self.folder / "secret.keys"
        keys.write_text(databases.KEY)
        return kind.load(
            database=self.url,
            nats=self.nats.url,
            redis=self.redis.url,
            credentials_file=creds,
            secret_keys_file=keys,
            node="here",
            drain_s=3.0,
            **more,
        )

    @contextlib.asynccontextmanager
    async def serving(
        self, given: SettingsT, serve: "process.Serve[SettingsT]"
    ) -> AsyncIterator[process.Context]:
        """Run one service with the shared store; stopped in order at the end of the block."""
        stop = asyncio.Event()
        async with process.open_context(given, store=self.store) as context:
            nudge = process.Nudge(context.rpc)
            self.store.on_commit = nudge.ring
            async with asyncio.TaskGroup() as group:
                group.create_task(serve(context, given, stop))
                group.create_task(nudge.run(stop))
                try:
                    yield context
                finally:
                    stop.set()

    async def until(
        self, look: Callable[[engine.Tx], Any], is_so: Callable[[Any], bool], within_s: float = 10.0
    ) -> Any:
        """What `look` finds, once it is so. A database has no event to wait for, so this looks every 10 ms."""
        found: Any = None
        try:
            async with asyncio.timeout(within_s):
                while True:
                    async with self.store.read() as tx:
                        found = await look(tx)
                    if is_so(found):
                        return found
                    await lifecycle.pause(0.01, asyncio.Event())
        except TimeoutError:
            raise AssertionError(f"it never became so within {within_s} s; last seen: {found}") from None


@contextlib.asynccontextmanager
async def opened(folder: pathlib.Path, kind: str = "sqlite") -> AsyncIterator[House]:
    """The ground, fresh, with streams and consumers made."""
    with (
        nats_server.NatsServer(folder / "nats") as nats,
        redis_server.RedisServer() as redis,
        databases.database(kind, folder) as url,
    ):
        bus = connections.Connections(nats)
        try:
            await streams.ensure((await bus.service("bootstrap")).jetstream())
            async with engine.open_store(url, databases.box()) as store:
                yield House(folder, nats, redis, url, store, bus)
        finally:
            await bus.close()
