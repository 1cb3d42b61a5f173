"""SQLite without a thread hop for each step of each statement.

aiosqlite hands every call to a thread, four of them a statement: 0.3 ms for what SQLite does in 0.02, and up to the
interpreter's switch interval when the loop is busy. Here statements run where they are asked. To the thread goes only what
waits: beginning to write while another process writes, putting the log back into the file, closing. What runs inline is
therefore bounded: our statements touch a page of rows at most. Decision 0003 has the figures.
"""

import pathlib
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import aiosqlite

CHECKPOINT_EVERY = 500
"""Commits of one connection; SQLite's own automatic one would stop the loop for an fsync."""
_BEGIN = "BEGIN IMMEDIATE"


class InlineConnection(aiosqlite.Connection):
    """An aiosqlite connection that runs in the loop what cannot wait. It overrides a private method: pinned, and tested."""

    def __init__(self, connector: Callable[[], sqlite3.Connection], *, busy_timeout_ms: int) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self._busy_timeout_ms = busy_timeout_ms
        self._commits = 0
        self._thread.daemon = True

    async def _connect(self) -> "InlineConnection":
        try:
            self._connection = self._connector()
        except BaseException:
            # Waited for: a thread that answers a loop which is gone by then raises where nobody hears.
            ended = self.stop()
            if ended is not None:
                await ended
            raise
        return self

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not self._running or self._connection is None:
            raise ValueError("Connection closed")  # as aiosqlite says it; SQLAlchemy reads the text
        if args and args[0] == _BEGIN:
            return await self._begin(fn, *args)
        done = fn(*args, **kwargs)
        if fn == self._connection.commit:
            await self._committed()
        return done

    async def _begin(self, fn: Callable[..., Any], *args: Any) -> Any:
        try:
            return fn(*args)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
        return await super()._execute(self._begin_patiently, fn, *args)  # type: ignore[no-untyped-call]

    def _begin_patiently(self, fn: Callable[..., Any], *args: Any) -> Any:
        self._conn.execute(f"PRAGMA busy_timeout={self._busy_timeout_ms}")
        try:
            return fn(*args)
        finally:
            self._conn.execute("PRAGMA busy_timeout=0")

    async def _committed(self) -> None:
        self._commits += 1
        if self._commits % CHECKPOINT_EVERY == 0:
            await super()._execute(self._checkpoint)  # type: ignore[no-untyped-call]

    def _checkpoint(self) -> None:
        # Fetched: a statement that is not through keeps the connection from the next savepoint.
        self._conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def creator(path: pathlib.Path, *, busy_timeout_ms: int) -> Callable[[], Awaitable[aiosqlite.Connection]]:
    """What SQLAlchemy's `async_creator` wants: a function that opens one more connection to the file."""

    def connect() -> sqlite3.Connection:
        # Used from the loop and from its own thread, never at the same time: SQLAlchemy has one user per connection.
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA wal_autocheckpoint=0")
        return connection

    async def opened() -> aiosqlite.Connection:
        return await InlineConnection(connect, busy_timeout_ms=busy_timeout_ms)

    return opened
