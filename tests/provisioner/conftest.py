"""Providers over a stub daemon."""

import pathlib
from collections.abc import AsyncIterator

import pytest

from paddock.provisioner.providers import bubblewrap, host, process, runtime
from tests.provisioner import inside, stub


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> runtime.Runtime:
    return runtime.locate(stub.install(tmp_path_factory.mktemp("runtime") / "venv"))


@pytest.fixture(params=["bubblewrap", "process"])
async def any_provider(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, daemon: runtime.Runtime
) -> AsyncIterator[host.HostProvider]:
    kind = {"bubblewrap": bubblewrap.Bubblewrap, "process": process.Process}[request.param]
    async with inside.emptied(kind(tmp_path / "data", daemon)) as made:
        yield made


@pytest.fixture
async def bwrap(tmp_path: pathlib.Path, daemon: runtime.Runtime) -> AsyncIterator[bubblewrap.Bubblewrap]:
    async with inside.emptied(bubblewrap.Bubblewrap(tmp_path / "data", daemon)) as made:
        yield made
