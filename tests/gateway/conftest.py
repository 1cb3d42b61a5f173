"""A real gateway over HTTP, on a real bus, store and Redis; machines are rows, and daemons where a test starts one."""

import pathlib
from collections.abc import AsyncIterator

import pytest

from tests.gateway import apps, door
from tests.support import databases, house


@pytest.fixture
def kind() -> str:
    """Which database; a test about races asks for both by a parameter of this name."""
    return "sqlite"


@pytest.fixture
def prepared(kind: str, tmp_path: pathlib.Path) -> str:
    """The kind of database, its template made: that runs a loop of its own, so not inside one."""
    if kind != "sqlite":
        with databases.database(kind, tmp_path):
            pass
    return kind


@pytest.fixture
async def ground(prepared: str, tmp_path: pathlib.Path) -> AsyncIterator[house.House]:
    async with house.opened(tmp_path, prepared) as opened:
        yield opened


@pytest.fixture
async def gateway(ground: house.House) -> AsyncIterator[door.Door]:
    async with door.opened(ground) as opened:
        yield opened


@pytest.fixture
async def machine(gateway: door.Door) -> AsyncIterator[apps.Machine]:
    """An active machine that is on the bus and lets its ports be reached."""
    async with apps.machine(gateway) as up:
        yield up


@pytest.fixture
async def app() -> AsyncIterator[apps.App]:
    """An HTTP server on this host's loopback, which is that of the machine, too."""
    running = apps.App()
    async with running.listening():
        yield running
