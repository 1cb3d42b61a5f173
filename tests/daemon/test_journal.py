"""The journal: what is known of calls after a kill -9, a torn line, a full disk, a day."""

import json
import os
import pathlib

import msgspec
import pytest

from paddock.bus import clock
from paddock.contracts import errors
from paddock.daemon import journal
from tests.daemon import machine as machines

HOUR_S = 3600.0


@pytest.fixture
def now() -> clock.ManualClock:
    return clock.ManualClock()


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "journal"


def opened(folder: pathlib.Path, now: clock.Clock) -> journal.Journal:
    book = journal.Journal(folder, now)
    book.open()
    return book


def end(book: journal.Journal, call_id: str, answer: bytes = b'{"exitCode":0}') -> None:
    book.succeeded(book.begin(call_id, "tool.execCommand", "d1"), msgspec.Raw(answer))


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("*.jsonl"))


def test_a_new_daemon_knows_what_an_old_one_began_and_ended(
    folder: pathlib.Path, now: clock.ManualClock
) -> None:
    """Without closing: a killed daemon does not."""
    first = opened(folder, now)
    end(first, "done")
    first.failed(
        first.begin("failed", "tool.writeFile", "d2"), errors.DiskFull("cannot write", data={"a": 1})
    )
    spawned = first.begin("spawned", "tool.execCommand", "d3")
    first.spawned(spawned, namespace="n", pid=7, ticks=99)
    first.begin("begun", "tool.execCommand", "d4")
    second = opened(folder, now)

    assert [call.call_id for call in second.unended()] == ["spawned", "begun"]
    found = second.find("spawned")
    assert found is not None
    assert (found.digest, found.namespace, found.pid, found.ticks) == ("d3", "n", 7, 99)
    done = second.find("done")
    assert done is not None
    assert bytes(second.answer(done)) == b'{"exitCode":0}'
    failed = second.find("failed")
    assert failed is not None
    with pytest.raises(errors.DiskFull, match="cannot write") as raised:
        second.answer(failed)
    assert raised.value.data == {"a": 1}


def test_nothing_is_known_of_a_call_that_never_began(folder: pathlib.Path, now: clock.ManualClock) -> None:
    assert opened(folder, now).find("never") is None


def test_a_line_cut_short_by_a_kill_loses_only_itself(folder: pathlib.Path, now: clock.ManualClock) -> None:
    end(opened(folder, now), "whole")
    with files(folder)[0].open("ab") as file:
        file.write(b'{"call_id":"torn","method":"tool.ex')
    second = opened(folder, now)
    end(second, "after")
    third = opened(folder, now)

    assert third.find("whole") is not None
    assert third.find("torn") is None
    after = third.find("after")
    assert after is not None
    assert bytes(third.answer(after)) == b'{"exitCode":0}'


@pytest.mark.parametrize(
    "garbage", [b"", b"\n\n", b"\x00" * 100 + b"\n", b"{}\n", b'{"call_id":1}\n', b"\xff\n"]
)
def test_garbage_in_the_file_is_passed_over(
    folder: pathlib.Path, now: clock.ManualClock, garbage: bytes
) -> None:
    folder.mkdir()
    (folder / "00000001.jsonl").write_bytes(garbage)
    (folder / "notes.txt").write_text("not ours")
    book = opened(folder, now)
    end(book, "c1")

    assert opened(folder, now).find("c1") is not None
    assert (folder / "notes.txt").exists()


def test_a_call_that_cannot_be_written_does_not_begin(
    folder: pathlib.Path, now: clock.ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = opened(folder, now)
    end(book, "before")
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
    with pytest.raises(errors.DiskFull):
        book.begin("c1", "tool.execCommand", "d1")
    monkeypatch.undo()
    end(book, "after")

    assert book.find("c1") is None
    again = opened(folder, now)
    assert [again.find(name) is not None for name in ("before", "c1", "after")] == [True, False, True]
    assert len(files(folder)[0].read_text().splitlines()) == 4


def test_on_a_full_disk_a_command_that_makes_room_can_still_begin(machine: machines.Machine) -> None:
    mount = machine.home / "small"
    mount.mkdir()
    tmpfs = machines.in_namespaces("--size", str(2 * 1024 * 1024), "--tmpfs", str(mount))
    script = f"""
import errno, pathlib
from paddock.bus import clock
from paddock.contracts import errors
from paddock.daemon import journal
small = pathlib.Path({str(mount)!r})
book = journal.Journal(small / "journal", clock.SystemClock())
book.open()
book.compact()
try:
    (small / "flood").write_bytes(b"x" * 4 * 1024 * 1024)
except OSError as error:
    assert error.errno == errno.ENOSPC
began = 0
try:
    while True:
        book.begin(f"c{{began}}", "tool.execCommand", "x" * 1000)
        began += 1
except errors.DiskFull:
    print("began", 100 < began < 500)
(small / "flood").unlink()
book.begin("after", "tool.execCommand", "d")
again = journal.Journal(small / "journal", clock.SystemClock())
again.open()
print("known", len(again.unended()) == began + 1, flush=True)
"""
    machine.start_python("-c", script, within=tmpfs).wait()
    said = [line for line in machine.log_path.read_text().splitlines() if "reserve" not in line]

    assert said == ["began True", "known True"]


def test_an_end_that_cannot_be_written_is_remembered_while_we_live(
    folder: pathlib.Path, now: clock.ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = opened(folder, now)
    call = book.begin("c1", "tool.execCommand", "d1")
    monkeypatch.setattr(os, "write", lambda _fd, _data: 0)
    book.succeeded(call, msgspec.Raw(b'{"a":1}'))
    monkeypatch.undo()

    assert bytes(book.answer(call)) == b'{"a":1}'
    assert [call.call_id for call in opened(folder, now).unended()] == ["c1"]


def test_answers_are_kept_for_a_day_and_then_forgotten(folder: pathlib.Path, now: clock.ManualClock) -> None:
    book = opened(folder, now)
    end(book, "old")
    for _ in range(23):
        now.advance(HOUR_S)
        book.compact()
    kept = book.find("old")
    assert kept is not None
    assert bytes(book.answer(kept)) == b'{"exitCode":0}'
    end(book, "young")
    for _ in range(3):
        now.advance(HOUR_S)
        book.compact()

    assert book.find("old") is None
    assert book.find("young") is not None
    assert opened(folder, now).find("old") is None
    assert len(files(folder)) <= 27


def test_a_call_that_runs_for_days_is_never_forgotten(folder: pathlib.Path, now: clock.ManualClock) -> None:
    book = opened(folder, now)
    call = book.begin("long", "tool.execCommand", "d1")
    book.spawned(call, namespace="n", pid=7, ticks=99)
    for _ in range(60):
        now.advance(HOUR_S)
        book.compact()
    found = opened(folder, now).find("long")

    assert found is not None
    assert (found.digest, found.pid, found.is_ended) == ("d1", 7, False)


def test_a_large_file_is_followed_by_a_new_one(
    folder: pathlib.Path, now: clock.ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1000)
    book = opened(folder, now)
    for number in range(4):
        end(book, f"c{number}", b'"' + b"x" * 1000 + b'"')
        book.compact()

    assert len(files(folder)) == 5
    first = book.find("c0")
    assert first is not None
    assert len(bytes(book.answer(first))) == 1002


def test_daemons_that_were_asked_nothing_leave_no_files(folder: pathlib.Path, now: clock.ManualClock) -> None:
    for _ in range(5):
        opened(folder, now).close()

    assert len(files(folder)) == 1


def test_the_file_is_for_its_owner_only_and_holds_no_parameters(
    folder: pathlib.Path, now: clock.ManualClock
) -> None:
    end(opened(folder, now), "c1")
    line = json.loads(files(folder)[0].read_text().splitlines()[0])

    assert files(folder)[0].stat().st_mode & 0o077 == 0
    assert set(line) == {"call_id", "method", "digest", "began_at_ms", "is"}
