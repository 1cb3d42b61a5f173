"""What must be there before the services start: tables, streams, and the first access token. All of it may run again."""

import asyncio
import json

from paddock.bus import files, rights, safeclient, streams
from paddock.contracts import errors
from paddock.local import data, wiring
from paddock.store import engine, tokens
from paddock.store.migrations import upgrade

CONNECT_S = 15.0
ADMIN = "admin"


async def everything(folder: data.DataFolder, addresses: wiring.Addresses) -> None:
    """Prepare the database, the bus and the files in which the `paddock` command looks.

    Raises:
        errors.Fault: The database or the bus does not answer.
    """
    await _database(folder, addresses.database)
    await _streams(folder, addresses.nats)
    files.write_private(folder.gateway_path, json.dumps({"url": addresses.gateway}))


async def _streams(folder: data.DataFolder, url: str) -> None:
    client = await safeclient.connect(
        url,
        name="bootstrap",
        creds=folder.creds_path("bootstrap"),
        inbox_prefix=rights.inbox_prefix("bootstrap"),
        timeout_s=CONNECT_S,
    )
    try:
        await streams.ensure(client.jetstream())
    finally:
        await client.close()


async def _database(folder: data.DataFolder, url: str) -> None:
    await asyncio.to_thread(upgrade.upgrade, url)
    async with engine.open_store(url, folder.secret_box()) as store:
        if not await _has_token(folder, store):
            async with store.write(actor="paddock up") as tx:
                _, text = await tokens.create(tx, name=ADMIN)
            files.write_private(folder.admin_token_path, f"{text}\n")


async def _has_token(folder: data.DataFolder, store: engine.Store) -> bool:
    """Whether the token in the folder is one of this database: either may have been replaced."""
    if not folder.admin_token_path.exists():
        return False
    async with store.read() as tx:
        try:
            await tokens.check(tx, folder.admin_token_path.read_text(encoding="ascii").strip())
        except errors.Unauthenticated:
            return False
    return True
