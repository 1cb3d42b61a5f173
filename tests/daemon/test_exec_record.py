"""The record of one command."""

import json
import os
import pathlib
from collections.abc import Iterator

import pytest

from paddock.daemon import exec_record

ACCEPTED: dict[str, object] = {
    "id": "x1",
    "digest": "d1",
    "command": ["echo", "ä\udcff"],
    "pty": False,
    "stdin": True,
    "beganAtMs": 5,
    "limitBytes": 65536,
    "segmentBytes": 4096,
    "namespace": "here",
    "timeoutS": 1.5,
}
STARTED: dict[str, object] = {"is": "started", "pid": 7, "ticks": 99}
ENDED: dict[str, object] = {
    "is": "ended",
    "exitCode": 3,
    "signal": None,
    "timedOut": False,
    "endedAtMs": 9,
    "stdoutBytes": 1,
    "stderrBytes": 2,
    "stdinBytes": 4,
}


@pytest.fixture
def folder_fd(tmp_path: pathlib.Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def write(folder_fd: int, *lines: dict[str, object], accepted: dict[str, object] = ACCEPTED) -> None:
    fd = exec_record.create(folder_fd, accepted)
    for line in lines:
        exec_record.append(fd, line)
    os.close(fd)


def test_what_was_accepted_is_read_back(tmp_path: pathlib.Path, folder_fd: int) -> None:
    write(folder_fd)
    record = exec_record.read(tmp_path)

    assert record is not None
    assert (record.id, record.digest, record.command) == ("x1", "d1", ["echo", "ä\udcff"])
    assert (record.pty, record.stdin, record.began_at_ms, record.timeout_s) == (False, True, 5, 1.5)
    assert (record.limit_bytes, record.segment_bytes, record.namespace) == (65536, 4096, "here")
    assert (record.pid, record.is_ended, record.is_failed) == (0, False, False)


def test_an_end_has_its_code_and_its_counts(tmp_path: pathlib.Path, folder_fd: int) -> None:
    write(folder_fd, STARTED, ENDED)
    record = exec_record.read(tmp_path)

    assert record is not None
    assert (record.pid, record.ticks) == (7, 99)
    assert (record.is_ended, record.exit_code, record.signal, record.is_lost) == (True, 3, None, False)
    assert (record.ended_at_ms, record.stdout_bytes, record.stderr_bytes, record.stdin_bytes) == (9, 1, 2, 4)


def test_a_signal_and_a_time_out_have_no_code(tmp_path: pathlib.Path, folder_fd: int) -> None:
    write(folder_fd, STARTED, ENDED | {"exitCode": None, "signal": "SIGKILL", "timedOut": True})
    record = exec_record.read(tmp_path)

    assert record is not None
    assert (record.exit_code, record.signal, record.is_timed_out) == (None, "SIGKILL", True)


def test_what_could_not_be_started_says_why(tmp_path: pathlib.Path, folder_fd: int) -> None:
    write(folder_fd, {"is": "failed", "what": "cwd", "errno": 2, "endedAtMs": 8})
    record = exec_record.read(tmp_path)

    assert record is not None
    assert (record.is_failed, record.failed_what, record.failed_errno, record.is_ended) == (
        True,
        "cwd",
        2,
        False,
    )


def test_a_line_that_was_cut_is_passed_over_at_every_byte(tmp_path: pathlib.Path, folder_fd: int) -> None:
    write(folder_fd, STARTED, ENDED)
    path = tmp_path / exec_record.NAME
    whole = path.read_bytes()
    states = []
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        record = exec_record.read(tmp_path)
        states.append("" if record is None else "ended" if record.is_ended else str(record.pid))

    assert sorted(set(states), key=states.index) == ["", "0", "7", "ended"]


def test_lost_is_added_behind_a_cut_line_and_a_seen_end_wins(tmp_path: pathlib.Path, folder_fd: int) -> None:
    write(folder_fd, STARTED)
    path = tmp_path / exec_record.NAME
    with path.open("ab") as file:
        file.write(b'{"is":"ended","exitCo')
    exec_record.append_lost(tmp_path, 77)
    lost = exec_record.read(tmp_path)
    with path.open("ab") as file:
        file.write(json.dumps(ENDED).encode() + b"\n")
    seen = exec_record.read(tmp_path)

    assert lost is not None
    assert seen is not None
    assert (lost.is_ended, lost.is_lost, lost.ended_at_ms, lost.exit_code) == (True, True, 77, None)
    assert (seen.is_ended, seen.is_lost, seen.exit_code) == (True, False, 3)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "garbage\n", "[]\n", "7\n", '{"is":"started","pid":1,"ticks":1}\n', '{"is":"accepted"}\n'],
)
def test_what_is_no_record_is_none(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / exec_record.NAME).write_text(text)

    assert exec_record.read(tmp_path) is None
    assert exec_record.read(tmp_path / "missing") is None


def test_later_garbage_changes_nothing(tmp_path: pathlib.Path, folder_fd: int) -> None:
    write(folder_fd, STARTED)
    with (tmp_path / exec_record.NAME).open("ab") as file:
        file.write(b'\xff\x00\n{"is":"ended"}\n{"is":"ended","endedAtMs":"x"}\nnull\n{"is":7}\n')
    record = exec_record.read(tmp_path)

    assert record is not None
    assert (record.pid, record.is_ended) == (7, False)


@pytest.mark.parametrize("size", [10, 3000, 3800, 4090, 9000])
def test_later_lines_need_no_further_block_of_the_disk(
    tmp_path: pathlib.Path, folder_fd: int, size: int
) -> None:
    write(folder_fd, accepted=ACCEPTED | {"command": ["x" * size]})
    before = (tmp_path / exec_record.NAME).stat().st_size
    later = sum(len(json.dumps(line)) for line in (STARTED, ENDED))

    assert -before % 4096 >= 1024 > later
    assert exec_record.read(tmp_path) is not None


def test_a_line_the_disk_took_half_of_is_taken_back(
    tmp_path: pathlib.Path, folder_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = exec_record.create(folder_fd, ACCEPTED)
    write, calls = os.write, []

    def half(to: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) % 2 == 0:
            raise OSError(28, "No space left on device")
        return write(to, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        exec_record.append(fd, STARTED)
    monkeypatch.undo()
    exec_record.append(fd, STARTED)
    os.close(fd)
    record = exec_record.read(tmp_path)

    assert record is not None
    assert record.pid == 7
    assert len((tmp_path / exec_record.NAME).read_bytes().splitlines()) == 2


def test_a_record_is_its_owners_only_and_never_made_twice(tmp_path: pathlib.Path, folder_fd: int) -> None:
    write(folder_fd)

    assert (tmp_path / exec_record.NAME).stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        exec_record.create(folder_fd, ACCEPTED)
