"""What is under way between clients and applications, and how it ends when nobody there ends it.

Whatever a token or ticket let in is cut within seconds of its end. When the gateway stops, what has no end of its own is cut
at once, and the rest gets time.
"""

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import AsyncIterator, Iterator
from typing import Final

from aiohttp import web

from paddock.bus import lifecycle, logs
from paddock.contracts import errors
from paddock.gateway import auth

log = logs.get(__name__)

CHECK_S: Final = auth.KEPT_S


@dataclasses.dataclass(slots=True, eq=False)
class Exchange:
    """One request and its answer, let in by a token until `ends_at` of the loop's time.

    `is_endless` ones last until somebody ends them.
    """

    request: web.BaseRequest
    token_id: str
    ends_at: float = math.inf
    is_endless: bool = False

    def cut(self) -> None:
        """End the client's connection; its handler is cancelled by that, and ends the application's."""
        if self.request.transport is not None:
            self.request.transport.close()


class Lasting:
    def __init__(self, authenticator: auth.Authenticator) -> None:
        self._authenticator = authenticator
        self._exchanges: set[Exchange] = set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._stop = asyncio.Event()

    @property
    def is_stopping(self) -> bool:
        return self._stop.is_set()

    @property
    def count(self) -> int:
        """Exchanges under way."""
        return len(self._exchanges)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tokens are looked at again while this block lasts."""
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._watch(), name="port-tokens")
            try:
                yield
            finally:
                watch.cancel()

    @contextlib.contextmanager
    def under_way(self, request: web.BaseRequest, token_id: str, left_s: float | None) -> Iterator[Exchange]:
        """Known here during the block; cut after `left_s` seconds when they are given."""
        now = asyncio.get_running_loop().time()
        exchange = Exchange(request, token_id, math.inf if left_s is None else now + left_s)
        self._exchanges.add(exchange)
        self._is_idle.clear()
        try:
            yield exchange
        finally:
            self._exchanges.discard(exchange)
            if not self._exchanges:
                self._is_idle.set()

    def began(self, exchange: Exchange) -> None:
        """An exchange turned out to have no end of its own."""
        exchange.is_endless = True
        if self._stop.is_set():
            exchange.cut()

    async def drain(self, drain_s: float) -> None:
        """Let no more in, and wait until all are done, at most so many seconds."""
        self._stop.set()
        for exchange in tuple(self._exchanges):
            if exchange.is_endless:
                exchange.cut()
        try:
            async with asyncio.timeout(drain_s):
                await self._is_idle.wait()
        except TimeoutError:
            log.warning("port_drain_cut_short", under_way=self.count)

    async def _watch(self) -> None:
        async for _ in lifecycle.every(CHECK_S, asyncio.Event()):
            ended = {
                one for one in {each.token_id for each in self._exchanges} if not await self._is_good(one)
            }
            now = asyncio.get_running_loop().time()
            for exchange in tuple(self._exchanges):
                if exchange.token_id in ended or exchange.ends_at <= now:
                    exchange.cut()

    async def _is_good(self, token_id: str) -> bool:
        try:
            await self._authenticator.standing(token_id)
        except errors.Unauthenticated:
            return False
        except errors.StoreDown:
            return True
        return True
