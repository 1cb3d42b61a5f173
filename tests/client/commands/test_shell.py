"""Which shell `paddock shell` picks, asked of a real sh; the terminal is in test_terminal.py."""

import pathlib
import subprocess

import pytest

from paddock.client.commands import shell
from tests.client.commands import conftest
from tests.support import fake_gateway


def machine_with(folder: pathlib.Path, *names: str) -> pathlib.Path:
    """A folder of shells that say who they are and what they were given."""
    for name in names:
        path = folder / name
        path.write_text(f'#!/bin/sh\necho {name} "$@" "$SHELL"\n')
        path.chmod(0o755)
    return folder


def picked(folder: pathlib.Path, own: str | None) -> str:
    environment = {"PATH": str(folder)} | ({} if own is None else {"SHELL": own})
    done = subprocess.run(
        ["/bin/sh", "-c", shell.SHELL], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_machine_s_own_shell_comes_first(tmp_path: pathlib.Path) -> None:
    there = machine_with(tmp_path, "zsh", "bash", "sh")

    assert picked(there, str(there / "zsh")) == f"zsh -l {there}/zsh"


@pytest.mark.parametrize("own", [None, "", "/nowhere/fish", "/usr/sbin/nologin", "/bin/false"])
def test_then_bash(tmp_path: pathlib.Path, own: str | None) -> None:
    there = machine_with(tmp_path, "bash", "sh")

    assert picked(there, own) == f"bash -l {there}/bash"


def test_then_sh(tmp_path: pathlib.Path) -> None:
    there = machine_with(tmp_path, "sh")

    assert picked(there, None) == f"sh -l {there}/sh"


async def test_without_a_terminal_here_none_is_opened(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    refused = await paddock("shell", machine)

    assert refused.exit_code == 78
    assert refused.stderr == "paddock: cannot open a shell: our standard input is no terminal\n"
    assert gateway.fleet.executions == {}
