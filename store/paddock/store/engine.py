"""Opening the database, and transactions on it.

SQLite (WAL, one host) and Postgres behave alike through here: `write()` is a transaction that may change things, `read()`
one that may not, and both carry the database's clock. A transaction never spans an await on bus, provider or process.
"""

import contextlib
import dataclasses
import pathlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.ext import asyncio as sa_asyncio

from paddock.bus import clock
from paddock.contracts import errors
from paddock.store import secrets, sqlite_inline

BUSY_TIMEOUT_MS = 10_000
"""How long one process waits for another's write on SQLite; within a process writers queue in order."""
Given: TypeAlias = Mapping[str, Any]
"""Values of a statement's bound parameters, or of an insert's columns."""
_PG_NOW = sa.text("SELECT (extract(epoch from clock_timestamp()) * 1000)::bigint")


@dataclasses.dataclass(slots=True)
class Tx:
    """One transaction: a connection, the database's time at its start, and who acts in it.

    `actor` and `caused_by` (an event id) go into events, transitions and runs written here. `has_news` is set by the
    outbox: after the commit somebody wants to be told. `planned` are the machines whose next run was seen to.
    """

    conn: sa_asyncio.AsyncConnection
    now_ms: int
    secrets: secrets.SecretBox
    actor: str = ""
    caused_by: str = ""
    has_news: bool = False
    planned: set[str] = dataclasses.field(default_factory=set)

    @property
    def is_sqlite(self) -> bool:
        return self.conn.dialect.name == "sqlite"

    # Hot statements are built once, with bound parameters: building one costs as much as running it.

    async def execute(self, statement: sa.Executable, given: Given | None = None) -> sa.CursorResult[Any]:
        return await self.conn.execute(statement, given)

    async def one(self, statement: sa.Executable, given: Given | None = None) -> sa.Row[Any] | None:
        return (await self.conn.execute(statement, given)).one_or_none()

    async def rows(self, statement: sa.Executable, given: Given | None = None) -> list[sa.Row[Any]]:
        return list((await self.conn.execute(statement, given)).all())

    async def scalar(self, statement: sa.Executable, given: Given | None = None) -> Any:
        return (await self.conn.execute(statement, given)).scalar()


class Store:
    """The database, open. Share one per process: its writers then queue in order instead of polling a lock."""

    def __init__(self, url: sa.URL, box: secrets.SecretBox, wall: clock.Clock) -> None:
        self._clock = wall
        self.secrets = box
        self.on_commit: Callable[[], None] = lambda: None
        """Called after each commit that wrote events; set by the process that can nudge the relay. Must not fail."""
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            # One connection is one writer: waiting for it is fair and in order, unlike SQLite's own busy polling.
            self._writer = _sqlite(url, pool_size=1, is_reader=False)
            self._reader = _sqlite(url, pool_size=4, is_reader=True)
        else:
            self._writer = self._reader = sa_asyncio.create_async_engine(
                url, pool_size=20, pool_pre_ping=True
            )

    @contextlib.asynccontextmanager
    async def write(self, *, actor: str = "", caused_by: str = "") -> AsyncIterator[Tx]:
        """A transaction that commits at the end of the block and rolls back on any exception.

        Raises:
            errors.StoreDown: The database cannot be reached.

        Cancellation: safe; it rolls back.
        """
        async with _connection(self._writer) as conn:
            tx = Tx(conn, await self._now(conn), self.secrets, actor, caused_by)
            yield tx
        if tx.has_news:
            self.on_commit()

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[Tx]:
        """A transaction for looking only.

        Raises:
            errors.StoreDown: The database cannot be reached.
        """
        async with _connection(self._reader) as conn:
            yield Tx(conn, await self._now(conn), self.secrets)

    async def _now(self, conn: sa_asyncio.AsyncConnection) -> int:
        # SQLite's clock is this host's clock; asking it would cost a thread hop in every transaction.
        if self.is_sqlite:
            return self._clock.now_ms()
        return int((await conn.execute(_PG_NOW)).scalar_one())

    async def ping(self) -> None:
        """Raises errors.StoreDown when the database does not answer."""
        async with self.read() as tx:
            await tx.execute(sa.text("SELECT 1"))

    async def close(self) -> None:
        await self._writer.dispose()
        await self._reader.dispose()


@contextlib.asynccontextmanager
async def open_store(
    url: str, box: secrets.SecretBox, *, wall: clock.Clock | None = None
) -> AsyncIterator[Store]:
    """Open the database at `url`; it must have been migrated (`migrations.upgrade`).

    Args:
        url: `sqlite:///path`, `postgresql://…`; the async drivers are chosen here.
        box: Opens and seals what is secret.
        wall: The clock on SQLite; Postgres has its own.
    """
    store = Store(async_url(url), box, wall or clock.SystemClock())
    try:
        yield store
    finally:
        await store.close()


def async_url(url: str) -> sa.URL:
    """`url` with the driver we use for it.

    Raises:
        errors.InvalidParams: It is neither SQLite nor Postgres, or no URL at all.
    """
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError:
        raise errors.InvalidParams(
            "cannot use the database URL: it is not sqlite:///path or postgresql://…"
        ) from None
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
    driver = drivers.get(parsed.get_backend_name())
    if driver is None:
        raise errors.InvalidParams(
            f"cannot use a {parsed.get_backend_name()} database: SQLite and Postgres are supported"
        )
    return parsed.set(drivername=driver)


def _sqlite(url: sa.URL, *, pool_size: int, is_reader: bool) -> sa_asyncio.AsyncEngine:
    path = pathlib.Path(url.database or "")
    engine = sa_asyncio.create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_reset_on_return=None,  # _connection always ends its transaction
        pool_timeout=60,
        async_creator=sqlite_inline.creator(path, busy_timeout_ms=BUSY_TIMEOUT_MS),
    )
    begin = "BEGIN" if is_reader else "BEGIN IMMEDIATE"

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        # NORMAL loses nothing to a killed process; only a power cut can cost the last commits (docs/security.md).
        for pragma in (
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "foreign_keys=ON",
            f"busy_timeout={BUSY_TIMEOUT_MS}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A deferred select-then-update fails at once with SQLITE_BUSY_SNAPSHOT and ignores busy_timeout.
        connection.exec_driver_sql(begin)

    return engine


@contextlib.asynccontextmanager
async def _connection(engine: sa_asyncio.AsyncEngine) -> AsyncIterator[sa_asyncio.AsyncConnection]:
    try:
        async with engine.connect() as conn, conn.begin():
            yield conn
    except (exc.InterfaceError, exc.TimeoutError, ConnectionError) as error:
        raise errors.StoreDown(detail=str(error)) from error
    except exc.OperationalError as error:
        raise errors.StoreDown(detail=str(error.orig)) from error
    except exc.DBAPIError as error:
        if error.connection_invalidated:
            raise errors.StoreDown(detail=str(error.orig)) from error
        raise


def is_unique_violation(error: exc.IntegrityError) -> bool:
    """Whether a row was refused because another has its key, on either database."""
    orig = error.orig
    cause = getattr(orig, "__cause__", None)
    if isinstance(orig, sqlite3.IntegrityError):
        return "UNIQUE" in str(orig)
    return getattr(cause, "sqlstate", getattr(orig, "sqlstate", "")) == "23505"
