"""Postgres, through asyncpg."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext import asyncio as sa_asyncio

POOL_SIZE = 20
T = TypeVar("T")


class Connection:
    """One transaction's connection."""

    is_sqlite = False

    def __init__(self, conn: sa_asyncio.AsyncConnection) -> None:
        self._conn = conn

    async def execute(
        self, statement: sa.Executable, given: Mapping[str, Any] | None = None
    ) -> sa.CursorResult[Any]:
        return await self._conn.execute(statement, given)

    @contextlib.asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """What fails inside is undone, and the transaction goes on."""
        async with self._conn.begin_nested():
            yield

    async def run_sync(self, look: Callable[[sa.Connection], T]) -> T:
        """For tools that want SQLAlchemy's own connection."""
        return await self._conn.run_sync(look)


class Database:
    """The server, by a pool of connections."""

    def __init__(self, url: sa.URL) -> None:
        self._engine = sa_asyncio.create_async_engine(url, pool_size=POOL_SIZE, pool_pre_ping=True)

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[Connection]:
        """A READ COMMITTED transaction: rows that two decide about are locked by who decides.

        Raises:
            exc.DBAPIError: The server cannot be reached, or refused.
        """
        async with self._engine.begin() as conn:
            yield Connection(conn)

    reading = writing

    async def close(self) -> None:
        await self._engine.dispose()
