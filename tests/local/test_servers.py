"""The servers of a stack: started again when they die, on the same address with the same data, closed to strangers."""

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator

import pytest

from paddock.bus import lifecycle, safeclient, streams
from paddock.contracts import errors, subjects
from paddock.local import binaries, data, servers
from paddock.store import presence


@contextlib.asynccontextmanager
async def both(
    path: pathlib.Path,
) -> AsyncIterator[tuple[data.DataFolder, servers.NatsServer, servers.RedisServer]]:
    folder = data.DataFolder(path)
    with folder.locked():
        realm = folder.realm()
        folder.write_creds(realm)
        nats, redis = servers.NatsServer(folder, realm), servers.RedisServer(folder)
        try:
            await nats.start()
            await redis.start()
            yield folder, nats, redis
        finally:
            await nats.stop()
            await redis.stop()


async def connected(folder: data.DataFolder, nats: servers.NatsServer) -> safeclient.SafeClient:
    creds = folder.creds_path("bootstrap")
    return await safeclient.connect(
        nats.url,
        name="test",
        creds=creds,
        inbox_prefix="_INBOX_bootstrap",
        timeout_s=5,
        reconnect_jitter_s=0.01,
    )


async def test_a_server_that_is_killed_is_back_on_its_address_with_its_data(tmp_path: pathlib.Path) -> None:
    async with both(tmp_path) as (folder, nats, redis):
        client = await connected(folder, nats)
        await streams.ensure(client.jetstream())
        before, url, stop, restored = nats.pid, nats.url, asyncio.Event(), asyncio.Event()
        client.watch(restored=restored.set)

        async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
            tasks.create_task(lifecycle.run({"nats": nats.keep, "redis": redis.keep}, stop, drain_s=5))
            await nats.kill()
            await redis.kill()
            await restored.wait()
            info = await client.jetstream().stream_info(subjects.EVENTS_STREAM)
            await redis.up.wait()
            async with presence.open_presence(redis.url) as beats:
                await beats.ping()
            stop.set()
        await client.close()

        assert nats.url == url
        assert nats.pid != before
        assert info.config.name == subjects.EVENTS_STREAM


async def test_the_next_run_on_a_data_folder_has_the_same_bus(tmp_path: pathlib.Path) -> None:
    async with both(tmp_path) as (_, nats, _redis):
        first = nats.url
    async with both(tmp_path) as (folder, nats, _redis):
        client = await connected(folder, nats)
        assert client.is_connected
        await client.close()

        assert nats.url == first


async def test_strangers_get_neither_the_bus_nor_redis(tmp_path: pathlib.Path) -> None:
    async with both(tmp_path) as (folder, nats, _redis):
        with pytest.raises(errors.BusDown):
            await safeclient.connect(nats.url, name="stranger", timeout_s=0.5)
        async with presence.open_presence(f"unix://{folder.redis_socket()}") as beats:
            with pytest.raises(errors.StoreDown):
                await beats.ping()


async def test_a_port_taken_by_another_program_is_an_error_that_says_so(tmp_path: pathlib.Path) -> None:
    async with both(tmp_path / "a") as (folder, nats, _redis):
        other = data.DataFolder(tmp_path / "b")
        with other.locked():
            other.keep_nats_port(folder.nats_port())
            taken = servers.NatsServer(other, other.realm())

            with pytest.raises(errors.NoAnswer, match="address already in use"):
                await taken.start()

        assert nats.pid


def test_a_program_that_is_too_old_or_cannot_run_is_passed_over(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, body in (("nats-server", "echo nats-server: v2.9.1"), ("redis-server", "exit 3")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    binaries.nats_server.cache_clear()
    binaries.redis_server.cache_clear()

    found = [binaries.nats_server(), binaries.redis_server()]

    binaries.nats_server.cache_clear()
    binaries.redis_server.cache_clear()
    assert [str(tmp_path) in path for path in found] == [False, False]
    assert binaries.version(found[0]) >= binaries.NATS_MIN
    assert binaries.version(found[1]) >= binaries.REDIS_MIN
