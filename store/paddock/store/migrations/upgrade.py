"""Bringing a database to the newest schema. Safe to call by several processes at once: the first does it, the rest wait."""

import asyncio
import contextlib
import fcntl
import pathlib
import sqlite3

import sqlalchemy as sa
from alembic import command, config
from sqlalchemy.ext import asyncio as sa_asyncio

from paddock.store import engine

_HERE = pathlib.Path(__file__).parent
_LOCK_KEY = 7_233_841
"""Of the Postgres advisory lock."""


def alembic_config(url: str) -> config.Config:
    settings = config.Config()
    settings.set_main_option("script_location", str(_HERE))
    settings.attributes["url"] = _sync_url(url)
    return settings


def upgrade(url: str) -> None:
    """Migrate the database at `url`; blocking, so call it before the loop starts or in a thread."""
    parsed = engine.async_url(url)
    if parsed.get_backend_name() == "sqlite":
        # SQLite commits each CREATE by itself, so its own lock does not make a migration one step.
        with pathlib.Path(f"{parsed.database}.migrating").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _use_wal(parsed.database or "")
            command.upgrade(alembic_config(url), "head")
        return
    asyncio.run(_upgrade_postgres(url))


def _use_wal(path: str) -> None:
    """The file remembers it. Here and not at each opening: two who switch at once fail, and waiting does not help."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


async def _upgrade_postgres(url: str) -> None:
    migrator = sa_asyncio.create_async_engine(engine.async_url(url))
    try:
        async with migrator.begin() as conn:
            await conn.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
            await conn.run_sync(_run_on, url)
    finally:
        await migrator.dispose()


def _run_on(connection: sa.Connection, url: str) -> None:
    settings = alembic_config(url)
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")


def _sync_url(url: str) -> sa.URL:
    return engine.async_url(url).set(drivername=engine.async_url(url).get_backend_name())
