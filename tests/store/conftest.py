"""Every store test runs on SQLite and on Postgres."""

import pathlib
from collections.abc import AsyncIterator, Iterator

import pytest

from paddock.bus import clock
from paddock.store import engine, projects
from tests.support import databases


@pytest.fixture(params=databases.KINDS)
def url(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[str]:
    with databases.database(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def store(url: str) -> AsyncIterator[engine.Store]:
    async with engine.open_store(url, databases.box()) as opened:
        yield opened


@pytest.fixture
async def other(url: str) -> AsyncIterator[engine.Store]:
    """A second process's view of the same database."""
    async with engine.open_store(url, databases.box()) as opened:
        yield opened


@pytest.fixture
async def project(store: engine.Store) -> projects.Project:
    async with store.write(actor="test") as tx:
        return await projects.create(tx, name="demo", provider="process")


@pytest.fixture
def wall() -> clock.Clock:
    return clock.SystemClock()
