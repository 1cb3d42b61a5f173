"""Who beats: the last heartbeat of each sandbox, in Redis. Losing all of it loses nothing that matters.

One sorted set, scored by the time of the last beat in unix milliseconds, so the silent ones are one range away. It also
carries when it was begun: an empty Redis has seen nobody yet, which is not the same as everybody being away.
"""

import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import redis.asyncio
from redis import backoff, exceptions
from redis.asyncio import retry

from paddock.contracts import errors, ids

BEATS_KEY = "paddock:beats"
BEGAN_KEY = "paddock:beats:began"
OP_TIMEOUT_S = 3.0


class Presence:
    """The beats of the fleet."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._redis = client

    async def beat(self, seen: Mapping[ids.SandboxId, int]) -> None:
        """Record last beats; many in one round trip.

        Raises:
            errors.StoreDown: Redis does not answer.
        """
        if seen:
            with _typed():
                pipe = self._redis.pipeline(transaction=False)
                pipe.zadd(BEATS_KEY, {str(sandbox): at for sandbox, at in seen.items()})
                pipe.set(BEGAN_KEY, min(seen.values()), nx=True)
                await pipe.execute()

    async def listening_since(self, now_ms: int) -> int:
        """When this Redis began to be listened to: its first beat, or the first time somebody asked this of it.

        Raises:
            errors.StoreDown: Redis does not answer.
        """
        with _typed():
            pipe = self._redis.pipeline(transaction=False)
            pipe.set(BEGAN_KEY, now_ms, nx=True)
            pipe.get(BEGAN_KEY)
            _, at = await pipe.execute()
        return now_ms if at is None else int(at)

    async def last_beats(self, sandboxes: Iterable[ids.SandboxId]) -> dict[ids.SandboxId, int]:
        """The last beat of each that ever beat.

        Raises:
            errors.StoreDown: Redis does not answer.
        """
        wanted = list(sandboxes)
        if not wanted:
            return {}
        with _typed():
            scores = await self._redis.zmscore(BEATS_KEY, [str(sandbox) for sandbox in wanted])
        return {sandbox: int(at) for sandbox, at in zip(wanted, scores, strict=True) if at is not None}

    async def beating_since(self, at_ms: int) -> dict[ids.SandboxId, int]:
        """Every sandbox that beat at or after `at_ms`, and when last.

        Raises:
            errors.StoreDown: Redis does not answer.
        """
        with _typed():
            found: Any = await self._redis.zrangebyscore(BEATS_KEY, at_ms, "+inf", withscores=True)
        return {ids.SandboxId(name.decode()): int(at) for name, at in found}

    async def forget(self, *, before_ms: int) -> None:
        """Drop those silent for longer than anybody asks.

        Raises:
            errors.StoreDown: Redis does not answer.
        """
        with _typed():
            await self._redis.zremrangebyscore(BEATS_KEY, "-inf", before_ms)

    async def ping(self) -> None:
        """Raises errors.StoreDown when Redis does not answer."""
        with _typed():
            await self._redis.ping()


@contextlib.asynccontextmanager
async def open_presence(url: str) -> AsyncIterator[Presence]:
    """Presence in the Redis at `url`; connections are made when first used and made again when lost."""
    # Once more at once: after a restart of Redis the first use of each kept connection finds it broken.
    again = retry.Retry(backoff.NoBackoff(), 1)
    client = redis.asyncio.from_url(
        url, socket_timeout=OP_TIMEOUT_S, socket_connect_timeout=OP_TIMEOUT_S, retry=again
    )
    try:
        yield Presence(client)
    finally:
        await client.aclose()


@contextlib.contextmanager
def _typed() -> Iterator[None]:
    try:
        yield
    except (exceptions.RedisError, OSError) as error:
        raise errors.StoreDown("cannot reach Redis", detail=str(error)) from error
