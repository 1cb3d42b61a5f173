"""Opening and using a database: errors that say what, transactions that hold, migrations that match the tables."""

import asyncio
import contextlib
import pathlib
import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy as sa
from alembic import autogenerate
from alembic.runtime import migration

from paddock.contracts import errors
from paddock.store import engine, leases, schema, sqlite
from paddock.store.migrations import upgrade
from tests.support import databases, postgres


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", ""])
def test_a_database_we_do_not_support_is_refused_by_name(url: str) -> None:
    with pytest.raises(errors.InvalidParams, match="cannot use"):
        engine.async_url(url)


async def test_a_database_that_is_away_is_a_fault_that_can_be_tried_again(tmp_path: pathlib.Path) -> None:
    async with engine.open_store(f"sqlite:///{tmp_path}/no/such/folder.db", databases.box()) as store:
        with pytest.raises(errors.StoreDown) as away:
            await store.ping()

    assert away.value.retryable


async def test_writers_of_one_process_wait_for_each_other_in_order(store: engine.Store) -> None:
    order: list[int] = []

    async def write(n: int) -> None:
        async with store.write() as tx:
            await leases.acquire(tx, "counter", "x", lease_ms=1)
            order.append(n)

    async with asyncio.TaskGroup() as group:
        for n in range(20):
            group.create_task(write(n))

    assert sorted(order) == list(range(20))


async def test_a_cancelled_transaction_leaves_nothing_and_the_next_goes_on(store: engine.Store) -> None:
    inside = asyncio.Event()

    async def stuck() -> None:
        async with store.write() as tx:
            await leases.acquire(tx, "half", "x", lease_ms=60_000)
            inside.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(stuck())
        await inside.wait()
        task.cancel()

    async with asyncio.timeout(5), store.write() as tx:
        assert await leases.last_beat(tx, "half") is None


async def test_the_migrations_make_exactly_the_tables_the_code_expects(store: engine.Store) -> None:
    def difference(connection: sa.Connection) -> list[object]:
        return list(
            autogenerate.compare_metadata(migration.MigrationContext.configure(connection), schema.metadata)
        )

    async with store.read() as tx:
        assert await tx.conn.run_sync(difference) == []


@pytest.mark.parametrize("kind", databases.KINDS)
def test_two_processes_that_migrate_at_once_and_a_third_later_agree(
    kind: str, tmp_path: pathlib.Path
) -> None:
    empty = f"sqlite:///{tmp_path}/new.db"
    with postgres.database(is_migrated=False) if kind == "postgres" else contextlib.nullcontext(empty) as url:
        program = "import sys; from paddock.store.migrations import upgrade; upgrade.upgrade(sys.argv[1])"
        both = [subprocess.Popen([sys.executable, "-c", program, url]) for _ in range(2)]
        codes = [process.wait(30) for process in both]

        upgrade.upgrade(url)

    assert codes == [0, 0]


async def test_sqlite_puts_its_log_back_now_and_then_and_goes_on(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint whose answer was not fetched left every later savepoint refused."""
    monkeypatch.setattr(sqlite, "CHECKPOINT_EVERY", 2)
    with databases.database("sqlite", tmp_path) as url:
        async with engine.open_store(url, databases.box()) as store:
            for number in range(5):
                async with store.write() as tx, tx.conn.savepoint():
                    await leases.acquire(tx, f"lease-{number}", "x", lease_ms=1)

            assert (tmp_path / "paddock.db-wal").stat().st_size < 200_000
            async with store.read() as tx:
                assert await leases.last_beat(tx, "lease-4") is not None


async def test_a_writer_waits_for_another_process_that_writes(tmp_path: pathlib.Path) -> None:
    with databases.database("sqlite", tmp_path) as url:
        other = sqlite3.connect(tmp_path / "paddock.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        async def write() -> None:
            async with store.write() as tx:
                await leases.acquire(tx, "late", "x", lease_ms=1)

        async with engine.open_store(url, databases.box()) as store, asyncio.TaskGroup() as group:
            waiting = group.create_task(write())
            async with store.read() as tx:  # a reader waits for nobody
                assert await leases.last_beat(tx, "late") is None
            assert not waiting.done()
            other.execute("COMMIT")
        other.close()

        async with engine.open_store(url, databases.box()) as store, store.read() as tx:
            assert await leases.last_beat(tx, "late") is not None
