"""state.json: absent is never started, corrupt is set aside, and it is never deleted."""

import json
import pathlib

import pytest

from paddock.daemon import state

LAST = state.State(state="running", state_reason="ready", boot_id="b1", pid=7, version="0.1.0", since_ms=1)


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state.json"


def test_what_was_written_is_read_and_is_for_people(file: pathlib.Path) -> None:
    state.StateFile(file).write(LAST)

    assert state.StateFile(file).read(now_ms=5) == LAST
    assert json.loads(file.read_text())["stateReason"] == "ready"


def test_no_file_is_no_state(file: pathlib.Path) -> None:
    assert state.StateFile(file).read(now_ms=5) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"state": "exploded"}'])
def test_a_corrupt_file_is_set_aside(file: pathlib.Path, content: bytes) -> None:
    file.write_bytes(content)
    read = state.StateFile(file).read(now_ms=5)

    assert read is None
    assert file.with_name("state.json.corrupt-5").read_bytes() == content
    assert not file.exists()


def test_a_newer_daemons_members_are_passed_over(file: pathlib.Path) -> None:
    state.StateFile(file).write(LAST)
    file.write_text(json.dumps({**json.loads(file.read_text()), "mood": "good"}))

    assert state.StateFile(file).read(now_ms=5) == LAST


def test_a_state_that_cannot_be_written_stops_nobody(tmp_path: pathlib.Path) -> None:
    file = state.StateFile(tmp_path / "missing/state.json")
    file.write(LAST)

    assert file.read(now_ms=5) is None


@pytest.mark.parametrize(
    ("last", "told", "reason"),
    [
        (None, "", ""),
        (None, "killed by SIGKILL", "killed by SIGKILL"),
        ("running", "killed by SIGKILL", "killed by SIGKILL"),
        ("running", "", "ended without a word"),
        ("stopped", "", "asked to"),
        ("stopped", "exit code 75", "asked to"),
    ],
)
def test_why_the_last_daemon_ended_is_put_together(last: state.Name | None, told: str, reason: str) -> None:
    before = None
    if last is not None:
        before = state.State(
            state=last, state_reason="asked to", boot_id="b1", pid=7, version="0.1.0", since_ms=1
        )

    assert state.last_exit(before, told) == reason
