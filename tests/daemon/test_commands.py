"""The tools on the command line: same answers, exit codes of commands, clear errors on stderr."""

import json
import pathlib
import subprocess
import sys
import tomllib

import pytest

from paddock.daemon import version
from tests.daemon import machine as machines


def test_a_commands_exit_code_and_output_are_ours(machine: machines.Machine) -> None:
    (machine.folder / ".env").write_text("GREETING='hello you'\n")
    done = machine.tool("exec-command", "sh", "-c", 'echo "$GREETING"; pwd; echo oops >&2; exit 7')

    assert done.returncode == 7
    assert done.stdout.decode() == f"hello you\n{machine.home}\n"
    assert done.stderr == b"oops\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["exec-command", "no-such-command"], 127, "command_not_found: cannot run 'no-such-command'"),
        (["exec-command", "/etc/passwd"], 126, "permission_denied"),
        (["exec-command", "--timeout", "0.1", "sleep", "9"], 124, "killed after 0.1 s"),
        (["exec-command", "--timeout", "0", "true"], 1, "invalid_params"),
        (["exec-command", "--timeout", "soon", "true"], 2, "'soon' is no number"),
        (["exec-command", "--timeout"], 2, "needs a value"),
        (["exec-command", "--loud", "true"], 2, "no option --loud"),
        (["exec-command"], 2, "needs a command"),
        (["exec-command", "sh", "-c", "kill -TERM $$"], 143, ""),
        (["read-file", "missing"], 1, "no_such_path"),
        (["read-file"], 2, "exactly one path"),
        (["write-file", "--mode", "9", "f"], 2, "'9' is no number"),
        (["write-file", "--mode", "77777", "f"], 1, "invalid_params"),
        (["write-file", "folder"], 1, "is_a_directory"),
        (["paint-file", "f"], 2, "no such tool"),
        ([], 2, "no such tool"),
    ],
)
def test_what_goes_wrong_is_said_on_stderr(
    machine: machines.Machine, arguments: list[str], code: int, said: str
) -> None:
    (machine.home / "folder").mkdir()
    done = machine.tool(*arguments)

    assert done.returncode == code
    assert said in done.stderr.decode()
    assert done.stdout == b""
    assert b"Traceback" not in done.stderr


def test_a_file_is_written_from_stdin_and_read_back(machine: machines.Machine) -> None:
    content = bytes(range(256)) * 10
    written = machine.tool("write-file", "--mode", "600", "a/f", stdin=content)
    read = machine.tool("read-file", "~/a/f")

    assert json.loads(written.stdout)["bytesWritten"] == 2560
    assert (machine.home / "a/f").stat().st_mode & 0o777 == 0o600
    assert read.stdout == content


def test_a_command_without_sense_shows_the_usage() -> None:
    done = subprocess.run([sys.executable, "-m", "paddock.daemon", "dance"], capture_output=True, check=False)

    assert done.returncode == 2
    assert done.stderr.startswith(b"usage: paddockd")


def test_the_version_is_that_of_the_distribution() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "paddock.daemon", "version"], capture_output=True, check=True
    )
    manifest = pathlib.Path(__file__).parents[2] / "daemon/pyproject.toml"

    assert done.stdout.decode().strip() == version.VERSION
    assert tomllib.loads(manifest.read_text())["project"]["version"] == version.VERSION
