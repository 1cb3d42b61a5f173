"""`paddock up` as a person starts and ends it."""

import contextlib
import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support import processes

UP = "import typer; from paddock.local import up; typer.run(up.up)"


@contextlib.contextmanager
def up(data: pathlib.Path) -> Iterator["subprocess.Popen[str]"]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PADDOCK_")}
    child = subprocess.Popen(
        [sys.executable, "-c", UP, "--data", str(data), "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def read_until(child: "subprocess.Popen[str]", wanted: str) -> str:
    assert child.stdout is not None
    said = ""
    for line in child.stdout:
        said += line
        if wanted in line:
            return said
    raise AssertionError(f"it ended without saying {wanted!r}: {said}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_tells_where_the_gateway_is_and_ends_in_order_when_asked(
    tmp_path: pathlib.Path, number: signal.Signals
) -> None:
    with up(tmp_path) as child:
        said = read_until(child, "next ")
        url = json.loads((tmp_path / "gateway.json").read_text())["url"]
        token = tmp_path / "admin.token"
        kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
        modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in kept}

        child.send_signal(number)
        rest = read_until(child, "stopped")

        assert child.wait(60) == 0
    assert url in said
    private = ["admin.token", "paddock.db", "paddock.log", "realm.json", "secret.keys", "gateway.creds"]
    assert {name: modes[name] for name in private} == dict.fromkeys(private, "0o600")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    assert token.read_text().strip() not in said + rest
    assert f"export PADDOCK_DATA={tmp_path}" in said
    assert "paddock project create" in said


async def test_kill_9_leaves_no_server_behind(tmp_path: pathlib.Path) -> None:
    with up(tmp_path) as child:
        read_until(child, "next ")
        nats = int(next((tmp_path / "nats").glob("*.ports")).stem.split("_")[1])
        assert processes.is_running(nats)

        child.kill()
        child.wait()

        await processes.until(lambda: not processes.is_running(nats))
        # And the folder is free at once for the next one.
    with up(tmp_path) as child:
        said = read_until(child, "next ")
        assert "Paddock is up" in said
        assert "paddock machine list" in said


def test_a_folder_in_use_is_one_sentence_and_no_traceback(tmp_path: pathlib.Path) -> None:
    with up(tmp_path) as first:
        read_until(first, "next ")
        with up(tmp_path) as second:
            said, _ = second.communicate(timeout=60)

            assert second.returncode == 1
    assert said.strip() == (
        f"cannot use the data folder {tmp_path}: process {first.pid} uses it; stop that one or take another folder"
    )
