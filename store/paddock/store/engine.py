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
from sqlalchemy import exc

from paddock.bus import clock
from paddock.contracts import errors
from paddock.store import postgres, secrets, sqlite

Given: TypeAlias = Mapping[str, Any]
"""Values of a statement's bound parameters, or of an insert's columns."""
Connection: TypeAlias = sqlite.Connection | postgres.Connection
_PG_NOW = sa.text("SELECT (extract(epoch from clock_timestamp()) * 1000)::bigint")


@dataclasses.dataclass(slots=True)
class Tx:
    """One transaction: a connection, the database's time at its start, and who acts in it.

    `actor` and `caused_by` (an event id) go into events, transitions and runs written here. `has_news` is set by the
    outbox: after the commit somebody wants to be told. `planned` are the machines whose next run was seen to.
    """

    conn: Connection
    now_ms: int
    secrets: secrets.SecretBox
    actor: str = ""
    caused_by: str = ""
    has_news: bool = False
    planned: set[str] = dataclasses.field(default_factory=set)

    @property
    def is_sqlite(self) -> bool:
        return self.conn.is_sqlite

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
        self._database: sqlite.Database | postgres.Database = (
            sqlite.Database(pathlib.Path(url.database or ""))
            if url.get_backend_name() == "sqlite"
            else postgres.Database(url)
        )

    @contextlib.asynccontextmanager
    async def write(self, *, actor: str = "", caused_by: str = "") -> AsyncIterator[Tx]:
        """A transaction that commits at the end of the block and rolls back on any exception.

        Raises:
            errors.StoreDown: The database cannot be reached.

        Cancellation: safe; it rolls back.
        """
        async with _faults(self._database.writing()) as conn:
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
        async with _faults(self._database.reading()) as conn:
            yield Tx(conn, await self._now(conn), self.secrets)

    async def _now(self, conn: Connection) -> int:
        # SQLite's clock is this host's clock.
        return self._clock.now_ms() if conn.is_sqlite else int((await conn.execute(_PG_NOW)).scalar_one())

    async def ping(self) -> None:
        """Raises errors.StoreDown when the database does not answer."""
        async with self.read() as tx:
            await tx.execute(sa.text("SELECT 1"))

    async def close(self) -> None:
        await self._database.close()


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
    drivers = {"sqlite": "sqlite", "postgresql": "postgresql+asyncpg"}
    driver = drivers.get(parsed.get_backend_name())
    if driver is None:
        raise errors.InvalidParams(
            f"cannot use a {parsed.get_backend_name()} database: SQLite and Postgres are supported"
        )
    return parsed.set(drivername=driver)


@contextlib.asynccontextmanager
async def _faults(
    opening: contextlib.AbstractAsyncContextManager[sqlite.Connection]
    | contextlib.AbstractAsyncContextManager[postgres.Connection],
) -> AsyncIterator[Connection]:
    """The same, with what a database that is away raises as a fault that can be tried again."""
    try:
        async with opening as conn:
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
