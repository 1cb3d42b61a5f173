"""A real Postgres for tests: one server a test worker, a fresh database a test, made from a migrated template."""

import asyncio
import atexit
import concurrent.futures
import contextlib
import functools
import os
import pathlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator

import asyncpg
import sqlalchemy as sa

from paddock.store import engine
from paddock.store.migrations import upgrade

TEMPLATE = "paddock_template"


@functools.cache
def server_url() -> str:
    """Where the server of this worker is: `PADDOCK_TEST_POSTGRES`, or one started from the wheel and stopped at exit."""
    # On import it asks for a runtime directory, and warns where there is none.
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="pdkrt-"))
    from pgserver import postgres_server

    given = os.environ.get("PADDOCK_TEST_POSTGRES")
    if given:
        return given
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pdkpg-"))
    # The server refuses to run as root and runs as a user of its own, who must be able to enter.
    folder.chmod(0o755)
    server = postgres_server.get_server(folder, cleanup_mode="stop")

    def stop() -> None:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(stop)
    return str(server.get_uri())


@functools.cache
def _template() -> str:
    name = f"{TEMPLATE}_{secrets.token_hex(4)}"
    _admin(f'CREATE DATABASE "{name}"')
    _beside(lambda: upgrade.upgrade(_of(name)))
    return name


@contextlib.contextmanager
def database(*, is_migrated: bool = True) -> Iterator[str]:
    """The URL of a fresh database; dropped at the end."""
    name = f"t_{secrets.token_hex(6)}"
    _admin(f'CREATE DATABASE "{name}" TEMPLATE "{_template() if is_migrated else "template0"}"')
    try:
        yield _of(name)
    finally:
        _admin(f'DROP DATABASE "{name}" WITH (FORCE)')


def _of(name: str) -> str:
    return sa.make_url(server_url()).set(database=name).render_as_string(hide_password=False)


def _admin(statement: str) -> None:
    async def run() -> None:
        url = engine.async_url(server_url())
        connection = await asyncpg.connect(
            user=url.username,
            password=url.password,
            database=url.database,
            host=url.query.get("host", url.host),
            port=url.port,
        )
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    _beside(lambda: asyncio.run(run()))


def _beside(work: Callable[[], None]) -> None:
    """In a thread: fixtures of async tests already run inside a loop."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(60)
