"""The `paddock` command against the fake gateway, run as a person runs it."""

import asyncio
import pathlib
from collections.abc import Awaitable, Callable

import pytest
import typer.testing

from paddock.client.commands import root
from tests.support import fake_gateway

Paddock = Callable[..., Awaitable[typer.testing.Result]]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where no `paddock up` was, with no address in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("PADDOCK_URL", "PADDOCK_TOKEN", "PADDOCK_TOKEN_FILE", "PADDOCK_PROJECT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def paddock(gateway: fake_gateway.FakeGateway) -> Paddock:
    """`await paddock("machine", "list")`, with the fake gateway in the environment."""

    async def run(
        *arguments: str, stdin: str | bytes | None = None, env: dict[str, str] | None = None
    ) -> typer.testing.Result:
        known = {"PADDOCK_URL": gateway.url, "PADDOCK_TOKEN": gateway.token}
        # In a thread: the command has an event loop of its own, and the gateway goes on in ours.
        return await asyncio.to_thread(
            typer.testing.CliRunner().invoke,
            root.app,
            list(arguments),
            input=stdin,
            env={**known, **(env or {})},
        )

    return run


@pytest.fixture
def project(gateway: fake_gateway.FakeGateway) -> str:
    return gateway.fleet.add_project("demo").id


@pytest.fixture
def machine(gateway: fake_gateway.FakeGateway, project: str) -> str:
    return gateway.fleet.add_machine(project, "box").id
