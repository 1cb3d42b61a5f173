"""SQLite, used from the event loop without a thread.

A statement of ours takes SQLite some 0.02 ms; handing it to a thread, as async drivers do, takes ten times that, and more
when the loop is busy. So statements run where they are asked for, and are bounded to a page of rows. What waits does not:
beginning to write while another process writes is tried again by the loop, and the log goes back into the file in a
thread. Within a process writers queue in order. Decision 0003 has the figures.
"""

import asyncio
import contextlib
import itertools
import pathlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc

BUSY_S = 10.0
"""How long one process waits for another's write."""
BUSY_STEPS_S = (0.001, 0.002, 0.005, 0.01, 0.02)
"""Between two tries; SQLite tells nobody when a lock is free."""
READERS = 8
CHECKPOINT_EVERY = 500
"""Commits of this process; SQLite's own automatic one would stop the loop for an fsync."""
T = TypeVar("T")


class Connection:
    """One transaction's connection; awaits nothing, so nothing of it can be cut short."""

    is_sqlite = True

    def __init__(self, conn: sa.Connection) -> None:
        self._conn = conn

    async def execute(
        self, statement: sa.Executable, given: Mapping[str, Any] | None = None
    ) -> sa.CursorResult[Any]:
        return self._conn.execute(statement, given)

    @contextlib.asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """What fails inside is undone, and the transaction goes on."""
        with self._conn.begin_nested():
            yield

    async def run_sync(self, look: Callable[[sa.Connection], T]) -> T:
        """For tools that want SQLAlchemy's own connection."""
        return look(self._conn)


class Database:
    """The file, open: one writer, some readers."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            connect_args={"timeout": 0, "isolation_level": None, "check_same_thread": False},
            pool_size=READERS + 1,
            max_overflow=0,
        )
        event.listen(self._engine, "connect", _prepare)
        self._writer = asyncio.Lock()
        self._readers = asyncio.Semaphore(READERS)
        self._commits = 0

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[Connection]:
        """A transaction that holds SQLite's one write lock from its beginning.

        A deferred select-then-update would fail at once when another wrote in between, however patient one is.

        Raises:
            exc.OperationalError: Another process holds the lock for longer than `BUSY_S`, or the file cannot be used.
        """
        async with self._writer:
            with self._engine.connect() as conn:
                await _begin_immediate(conn)
                yield Connection(conn)
                conn.commit()
            self._commits += 1
        if self._commits % CHECKPOINT_EVERY == 0:
            await asyncio.to_thread(_checkpoint, self._path)

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """A transaction that sees one moment and waits for nobody.

        Raises:
            exc.OperationalError: The file cannot be used.
        """
        async with self._readers:
            with self._engine.connect() as conn:
                conn.exec_driver_sql("BEGIN")
                yield Connection(conn)

    async def close(self) -> None:
        self._engine.dispose()


async def _begin_immediate(conn: sa.Connection) -> None:
    clock = asyncio.get_running_loop().time
    ends_at = clock() + BUSY_S
    for attempt in itertools.count():
        try:
            conn.exec_driver_sql("BEGIN IMMEDIATE")
        except exc.OperationalError as error:
            if not _is_busy(error) or clock() > ends_at:
                raise
        else:
            return
        await asyncio.sleep(BUSY_STEPS_S[min(attempt, len(BUSY_STEPS_S) - 1)])


def _is_busy(error: exc.OperationalError) -> bool:
    return (
        isinstance(error.orig, sqlite3.OperationalError)
        and error.orig.sqlite_errorcode == sqlite3.SQLITE_BUSY
    )


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    # NORMAL loses nothing to a killed process; only a power cut can cost the last commits (docs/security.md).
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON", "wal_autocheckpoint=0"):
        connection.execute(f"PRAGMA {pragma}")


def _checkpoint(path: pathlib.Path) -> None:
    with contextlib.closing(sqlite3.connect(path, timeout=0)) as aside:
        aside.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
