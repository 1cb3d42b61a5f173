"""The demo, as `make demo` runs it."""

import io
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import pytest
import rich.console

from paddock.local import demo, narrator, sandboxes
from tests.local import leftovers


async def test_the_demo_tells_the_whole_story_and_leaves_nothing_running(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEMO_REPO", raising=False)
    heard, before = io.StringIO(), leftovers.children()
    say = narrator.Narrator(rich.console.Console(file=heard, width=200, highlight=False))

    await demo.tell(say, tmp_path)

    story = heard.getvalue()
    chapters = [
        "machine.created",
        "machine.activated",
        "git log -1",
        "printenv",
        "version 1 → 2 applied",
        "deleted",
    ]
    assert [chapter for chapter in chapters if chapter not in story] == []
    assert sorted(chapters, key=story.index) == chapters
    assert leftovers.children() <= before


async def test_where_bubblewrap_cannot_run_the_demo_says_so_and_runs_plain_processes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def best(_: pathlib.Path) -> tuple[str, str]:
        return "process", "no user namespaces here"

    monkeypatch.delenv("DEMO_REPO", raising=False)
    monkeypatch.setattr(sandboxes, "best", best)
    heard, before = io.StringIO(), leftovers.children()

    await demo.tell(narrator.Narrator(rich.console.Console(file=heard, width=200, highlight=False)), tmp_path)

    assert "WITHOUT ISOLATION" in heard.getvalue()
    assert "no user namespaces here" in heard.getvalue()
    assert leftovers.children() <= before


async def test_a_demo_that_fails_says_why_and_leaves_nothing_running(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_REPO", "http://127.0.0.1:1/nothing-listens-here.git")
    heard, before = io.StringIO(), leftovers.children()
    say = narrator.Narrator(rich.console.Console(file=heard, width=200, highlight=False))

    with pytest.raises(demo.NotAsPromisedError, match="the machine is failed: "):
        await demo.tell(say, tmp_path)

    assert "machine.failed" in heard.getvalue()
    assert not list((tmp_path / "sandboxes").iterdir())
    assert leftovers.children() <= before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_says_so_and_leaves_nothing_at_all(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.delenv("DEMO_REPO", raising=False)
    # Not tmp_path: the path of Redis' socket would be too long.
    folder = tempfile.mkdtemp(prefix="pdkdemo-")
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", "paddock.local.demo"],
        env={**os.environ, "TMPDIR": folder},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with child:
        try:
            assert child.stdout is not None
            assert any("machine.provisioning" in line for line in child.stdout)
            child.send_signal(number)
            rest = child.stdout.read()
        finally:
            child.kill()

    assert child.returncode == demo.STOPPED, rest
    assert rest.rstrip().endswith("Stopped before its end, nothing is left running")
    assert "Traceback" not in rest
    pathlib.Path(folder).rmdir()  # and it was empty
