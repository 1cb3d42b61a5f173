import asyncio
import importlib.metadata
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest
import typer
import typer.testing

from paddock.client.commands import root
from paddock.contracts import events
from tests.client.commands import conftest
from tests.support import fake_gateway

HEAVY = ("aiohttp", "pydantic", "msgspec", "rich", "nats", "sqlalchemy", "paddock.bus", "paddock.local")
FORBIDDEN = ("nats", "sqlalchemy", "redis", "paddock.bus", "paddock.local")


def loaded_after(code: str, modules: tuple[str, ...]) -> list[str]:
    """Which of `modules` a fresh Python has after running `code`."""
    ending = f"\nimport sys\nprint([name for name in {modules!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code) + ending], capture_output=True, text=True, check=True
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1].replace("'", '"'))
    return found


class Point:
    """An entry point that leads to `found`."""

    def __init__(self, name: str, found: object) -> None:
        self.name = name
        self.load = lambda: found


@pytest.fixture
def bring(monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """Commands that other members bring."""
    points: list[Point] = []
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: points)
    return points


def test_help_loads_nothing_that_takes_time() -> None:
    code = """
        from paddock.client.commands import root
        root.app(["--help"], standalone_mode=False)
    """

    assert loaded_after(code, HEAVY) == []


def test_no_command_of_ours_knows_the_bus_or_a_database() -> None:
    code = """
        import importlib
        from paddock.client.commands import root
        for name in root.NOUNS:
            importlib.import_module(f"paddock.client.commands.{root.module_name(name)}")
    """

    assert loaded_after(code, FORBIDDEN) == []


def test_each_noun_has_a_module_and_a_line_of_help() -> None:
    runner = typer.testing.CliRunner()

    helps = {name: runner.invoke(root.app, [name, "--help"]) for name in root.NOUNS if name != "up"}

    assert [name for name, shown in helps.items() if shown.exit_code != 0] == []
    assert all(line in runner.invoke(root.app, ["--help"]).stdout for line in root.NOUNS)


def test_up_without_the_member_that_brings_it_says_what_to_install(bring: list[Point]) -> None:
    shown = typer.testing.CliRunner().invoke(root.app, ["up", "--data", "x"])

    assert shown.exit_code == 72
    assert shown.stderr.startswith("paddock: cannot start anything here: the package paddock-local")


def test_a_function_that_another_member_brings_is_a_command(bring: list[Point]) -> None:
    def up(data: str = ".paddock") -> None:
        typer.echo(f"up in {data}")

    bring.append(Point("up", up))

    assert typer.testing.CliRunner().invoke(root.app, ["up", "--data", "x"]).stdout == "up in x\n"


def test_a_typer_app_that_another_member_brings_is_a_command(bring: list[Point]) -> None:
    app = typer.Typer()

    @app.command()
    def anything(thing: str) -> None:
        typer.echo(f"doctor {thing}")

    bring.append(Point("doctor", app))
    runner = typer.testing.CliRunner()

    assert runner.invoke(root.app, ["doctor", "who"]).stdout == "doctor who\n"
    assert "doctor" in runner.invoke(root.app, ["--help"]).stdout


def test_an_unknown_noun_is_refused_with_a_likely_one() -> None:
    shown = typer.testing.CliRunner().invoke(root.app, ["machines"])

    assert shown.exit_code == 2
    assert "Did you mean 'machine'" in shown.stderr


def test_the_version_is_the_package_s() -> None:
    shown = typer.testing.CliRunner().invoke(root.app, ["--version"])

    assert shown.stdout == f"{importlib.metadata.version('paddock-client')}\n"


async def test_the_folder_of_paddock_up_is_found(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, project: str, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / ".paddock"
    folder.mkdir()
    (folder / "gateway.json").write_text(json.dumps({"url": gateway.url}))
    (folder / "admin.token").write_text(gateway.token)

    shown = await paddock("project", "get", "demo", env={"PADDOCK_URL": "", "PADDOCK_TOKEN": ""})

    assert shown.exit_code == 0, shown.stderr


@pytest.mark.parametrize("place", ["before the noun", "after the verb"])
async def test_address_and_token_can_be_given_by_hand(
    paddock: conftest.Paddock,
    gateway: fake_gateway.FakeGateway,
    project: str,
    tmp_path: pathlib.Path,
    place: str,
) -> None:
    (tmp_path / "token").write_text(gateway.token)
    options = ("--url", gateway.url, "--token-file", "token")
    words = ("project", "get", project)
    typed = (*options, *words) if place == "before the noun" else (*words, *options)

    shown = await paddock(*typed, env={"PADDOCK_URL": "http://127.0.0.1:1", "PADDOCK_TOKEN": "wrong"})

    assert shown.exit_code == 0, shown.stderr


async def test_without_an_address_the_sentence_says_where_one_can_come_from(
    paddock: conftest.Paddock,
) -> None:
    shown = await paddock("project", "list", env={"PADDOCK_URL": "", "PADDOCK_TOKEN": ""})

    assert shown.exit_code == 78
    assert "give --url or PADDOCK_URL" in shown.stderr


async def test_a_wrong_token_says_where_a_valid_one_can_come_from(paddock: conftest.Paddock) -> None:
    shown = await paddock("project", "list", env={"PADDOCK_TOKEN": "wrong"})

    assert shown.exit_code == 77
    assert "--token-file" in shown.stderr


def test_a_bug_is_a_sentence_and_no_traceback() -> None:
    code = textwrap.dedent("""
        import sys
        from paddock.client import __main__
        from paddock.client.commands import root
        root._loaded = None
        sys.argv = ["paddock", "project", "list"]
        __main__.main()
    """)

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 70
    assert done.stderr.startswith("paddock: cannot go on: TypeError")
    assert done.stderr.count("\n") == 1


async def test_ctrl_c_ends_a_command_with_a_sentence(gateway: fake_gateway.FakeGateway) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paddock.client", "events", "--follow"),
        env={"PADDOCK_URL": gateway.url, "PADDOCK_TOKEN": gateway.token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await gateway.subscribers(2)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        output, remarks = await process.communicate()

    assert (process.returncode, output) == (130, b"")
    assert remarks == b"paddock: stopped here; what the gateway was asked goes on\n"


async def test_the_end_of_a_pipe_is_no_bug(
    gateway: fake_gateway.FakeGateway, project: str, tmp_path: pathlib.Path
) -> None:
    for _ in range(2000):
        gateway.fleet.happen(events.PROJECT_UPDATED, project=project)
    command = f"{sys.executable} -m paddock.client events --last 2000 | head -1"

    process = await asyncio.create_subprocess_shell(
        command,
        env={"PADDOCK_URL": gateway.url, "PADDOCK_TOKEN": gateway.token, "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        output, remarks = await process.communicate()

    assert output.count(b"\n") == 1
    assert remarks == b""
