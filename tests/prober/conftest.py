"""The ground a prober stands on: real store, real bus, a machine whose daemon is real."""

import pathlib
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.setup_pusher import grounds
from tests.setup_pusher import machine as guests
from tests.support import databases, house


@pytest.fixture
def kind() -> str:
    """Of database; a test that runs on both says so."""
    return "sqlite"


@pytest.fixture
def url(kind: str, tmp_path: pathlib.Path) -> Iterator[str]:
    with databases.database(kind, tmp_path) as made:
        yield made


@pytest.fixture
async def ground(url: str, tmp_path: pathlib.Path) -> AsyncIterator[house.House]:
    async with grounds.opened(tmp_path, url) as opened:
        yield opened


@pytest.fixture
async def machine(ground: house.House) -> AsyncIterator[guests.Machine]:
    """Not booted yet."""
    folder = ground.folder / "guest"
    folder.mkdir()
    async with guests.on_the_bus(ground.bus, folder, service="prober") as made:
        yield made
