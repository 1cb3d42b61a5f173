"""SQLite without a thread hop for each step of each statement.

aiosqlite hands every call to a thread, four of them a statement: 0.3 ms for what SQLite does in 0.02. Here statements run
where they are asked; only what may wait for a lock or the disk (beginning to write, committing) goes to the thread. What
runs inline is therefore bounded: our statements touch a page of rows at most. Decision 0003 has the figures.
"""

import pathlib
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import aiosqlite

_WAITS = frozenset({"commit", "rollback", "close"})


class InlineConnection(aiosqlite.Connection):
    """An aiosqlite connection that runs in the loop what cannot wait. It overrides a private method: pinned, and tested."""

    def __init__(self, connector: Callable[[], sqlite3.Connection], *, is_reader: bool) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self._is_reader = is_reader
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
        if self._may_wait(fn, args):
            return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        if not self._running or self._connection is None:
            raise ValueError("Connection closed")  # as aiosqlite says it; SQLAlchemy reads the text
        return fn(*args, **kwargs)

    def _may_wait(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        if fn.__name__ == "close" and not args and not self._is_cursor(fn):
            return True
        if self._is_reader:
            return False  # in WAL a reader waits for nobody
        return (fn.__name__ in _WAITS and not self._is_cursor(fn)) or _begins_writing(args)

    @staticmethod
    def _is_cursor(fn: Callable[..., Any]) -> bool:
        return isinstance(getattr(fn, "__self__", None), sqlite3.Cursor)


def _begins_writing(args: tuple[Any, ...]) -> bool:
    return bool(args) and isinstance(args[0], str) and args[0].startswith(("BEGIN IMMEDIATE", "PRAGMA"))


def creator(
    path: pathlib.Path, *, is_reader: bool, busy_timeout_s: float
) -> Callable[[], Awaitable[aiosqlite.Connection]]:
    """What SQLAlchemy's `async_creator` wants: a function that opens one more connection to the file."""

    def connect() -> sqlite3.Connection:
        # Used from the loop and from its own thread, never at the same time: SQLAlchemy has one user per connection.
        return sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)

    async def opened() -> aiosqlite.Connection:
        return await InlineConnection(connect, is_reader=is_reader)

    return opened
