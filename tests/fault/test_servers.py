"""The bus and Redis are killed in mid-flight: nothing is done twice, nothing is lost, nobody is called away who is not."""

import asyncio
import contextlib
import pathlib
import random
import socket
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from paddock.contracts import daemon, events, phases
from paddock.local import wiring
from tests.fault import ground as grounds

pytestmark = pytest.mark.fault

MACHINES = 20
OFFLINE_S = 2 * daemon.HEARTBEAT_S + 4.0
"""Two beats, a look of the watcher's, and a flush of the beats."""


@contextlib.asynccontextmanager
async def bus_down(ground: grounds.Ground) -> AsyncIterator[None]:
    """No bus inside the block: it is killed, and something else has its port."""
    port = int(ground.fleet.nats.url.rpartition(":")[2])
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await ground.fleet.nats.kill()
        taken.bind(("127.0.0.1", port))
        # From here on nobody may share it: two sockets that do not listen yet could.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        yield
    async with asyncio.timeout(grounds.WITHIN_S):
        await ground.fleet.nats.up.wait()


def connections_told(ground: grounds.Ground, machine: str = "%") -> list[str]:
    """What was announced of machines' connections, in order."""
    bodies = ground.query(
        "SELECT body FROM outbox WHERE subject LIKE ? ORDER BY position",
        f"{events.MACHINE_CONNECTION_CHANGED}.%.{machine}",
    )
    return [events.decode(body).data["connection"] for body in bodies if isinstance(body, bytes)]


async def test_twenty_machines_outlive_a_bus_killed_again_and_again(
    tmp_path: pathlib.Path, chance: random.Random
) -> None:
    async def kill_it(times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(chance.uniform(0.1, 2.0))
            await ground.fleet.nats.kill()
            await ground.fleet.nats.up.wait()

    async with grounds.opened(tmp_path) as ground:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kill_it(4))
            machines = await ground.create(MACHINES)
        await ground.until_active(machines)
        await ground.expect_whole(machines)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kill_it(2))
            await ground.set_value("second")
        await ground.until_active(machines)
        await ground.expect_whole(machines)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kill_it(2))
            await ground.delete(machines)
        await ground.until_gone(machines)
        await ground.expect_nothing_left()
        await ground.until_told()

        services = [ground.fleet.running(name).ended.is_set() for name in wiring.SERVICES]
    assert services == [False] * len(services)


async def test_what_is_committed_while_the_bus_is_down_is_done_and_told_when_it_is_back(
    tmp_path: pathlib.Path,
) -> None:
    async with grounds.opened(tmp_path) as ground:
        before = await ground.create(3)
        await ground.until_active(before)

        async with bus_down(ground):
            machines = await ground.create(5)
            await ground.set_value("told while the bus was down")
            await ground.delete(before[:1])
            await asyncio.sleep(6.0)  # longer than three attempts would take: an outage is no attempt
            waiting = ground.query("SELECT count(*) FROM outbox WHERE sent_at IS NULL")
            rows = {one.id: one.phase for one in await ground.listed()}

        left = [*before[1:], *machines]
        await ground.until_active(left)
        await ground.until_gone(before[:1])
        await ground.expect_whole(left)
        await ground.until_told()

    assert waiting != [0]
    assert phases.Phase.FAILED not in rows.values()


async def test_a_redis_that_is_emptied_and_killed_takes_no_machine_away(
    tmp_path: pathlib.Path, chance: random.Random
) -> None:
    async with grounds.opened(tmp_path) as ground:
        machines = await ground.create(5)
        await asyncio.sleep(chance.uniform(0.2, 1.5))
        await ground.fleet.redis.kill()
        await ground.until_active(machines)
        await ground.fleet.redis.up.wait()
        async with contextlib.aclosing(redis.asyncio.from_url(ground.fleet.redis.url)) as client:
            assert await client.ping()
            await asyncio.sleep(OFFLINE_S / 2)
            await client.flushall()
            await asyncio.sleep(OFFLINE_S)
            beating = await client.zcard("paddock:beats")

        assert set(connections_told(ground)) == {phases.Connection.ONLINE}
        assert beating == len(machines)
        await ground.expect_whole(machines)
