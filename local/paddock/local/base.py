"""What a stack stands on: the data folder locked, the servers up, tables and streams made."""

import contextlib
import dataclasses
from collections.abc import AsyncIterator

from paddock.bus import accounts
from paddock.local import data, prepare, runtime, servers, wiring


@dataclasses.dataclass(frozen=True, slots=True)
class Base:
    """What services need, in whatever processes they are. A server that is not ours was never started."""

    addresses: wiring.Addresses
    realm: accounts.Realm
    nats: servers.NatsServer
    redis: servers.RedisServer


@contextlib.asynccontextmanager
async def open_base(folder: data.DataFolder, settings: wiring.Settings) -> AsyncIterator[Base]:
    """The data folder locked, the servers up and prepared."""
    found = settings.runtime or runtime.find()
    with folder.locked():
        realm = folder.realm()
        folder.write_creds(realm)
        nats, redis = servers.NatsServer(folder, realm), servers.RedisServer(folder)
        wanted = ((nats, not settings.nats), (redis, not settings.redis))
        async with servers.kept(*(server for server, is_ours in wanted if is_ours)):
            addresses = wiring.Addresses(
                nats=settings.nats or nats.url,
                redis=settings.redis or redis.url,
                database=settings.database or folder.database_url(),
                gateway_port=folder.gateway_port(settings.gateway_port),
                runtime=found,
            )
            await prepare.everything(folder, addresses)
            yield Base(addresses, realm, nats, redis)
