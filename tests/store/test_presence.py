"""Who beats, in a real Redis: found by time, gone with Redis, and never a reason to stop."""

from collections.abc import AsyncIterator, Iterator

import pytest

from paddock.contracts import errors, ids
from paddock.store import presence
from tests.support import redis_server

A, B = ids.SandboxId("ma-1"), ids.SandboxId("mb-1")


@pytest.fixture
def redis() -> Iterator[redis_server.RedisServer]:
    with redis_server.RedisServer() as running:
        yield running


@pytest.fixture
async def seen(redis: redis_server.RedisServer) -> AsyncIterator[presence.Presence]:
    async with presence.open_presence(redis.url) as opened:
        yield opened


async def test_the_last_beat_of_each_is_kept_and_the_recent_ones_are_found(seen: presence.Presence) -> None:
    await seen.beat({A: 1000, B: 1500})
    await seen.beat({A: 2000})

    assert await seen.last_beats([A, B, ids.SandboxId("mc-1")]) == {A: 2000, B: 1500}
    assert await seen.beating_since(1600) == {A: 2000}


async def test_those_silent_for_long_are_forgotten(seen: presence.Presence) -> None:
    await seen.beat({A: 1000, B: 5000})

    await seen.forget(before_ms=2000)

    assert await seen.last_beats([A, B]) == {B: 5000}


async def test_an_emptied_redis_is_listened_to_from_when_it_is_asked(
    seen: presence.Presence, redis: redis_server.RedisServer
) -> None:
    await seen.beat({A: 1000})
    before = await seen.listening_since(7000)
    redis.stop()
    redis.start()

    assert before == 1000
    assert [await seen.listening_since(at) for at in (9000, 9500)] == [9000, 9000]


async def test_a_redis_that_is_away_is_a_fault_that_can_be_tried_again(
    seen: presence.Presence, redis: redis_server.RedisServer
) -> None:
    redis.stop()

    with pytest.raises(errors.StoreDown) as away:
        await seen.beat({A: 1})

    assert away.value.retryable
