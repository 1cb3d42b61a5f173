"""A report that cannot be delivered waits on disk, and its reason is not lost."""

import pathlib

import msgspec
import pytest

from paddock.contracts import daemon
from paddock.daemon import spool


def ready(boot_id: str, last_exit: str) -> daemon.ReadyParams:
    return daemon.ReadyParams(
        boot_id=boot_id, wire_version=1, daemon_version="0.1.0", sent_at_ms=1, last_exit=last_exit
    )


def test_the_reason_of_a_report_that_waits_is_joined_to_the_next(tmp_path: pathlib.Path) -> None:
    spool.Spool(tmp_path / "spool").keep(ready("b1", "killed by SIGKILL"))
    joined = spool.Spool(tmp_path / "spool").joined(ready("b2", "exit code 1"))

    assert joined.boot_id == "b2"
    assert joined.last_exit == "exit code 1; before that: killed by SIGKILL"


def test_a_report_that_was_taken_is_forgotten(tmp_path: pathlib.Path) -> None:
    waiting = spool.Spool(tmp_path / "spool")
    waiting.keep(ready("b1", "killed by SIGKILL"))
    waiting.drop()
    waiting.drop()

    assert waiting.joined(ready("b2", "exit code 1")) == ready("b2", "exit code 1")
    assert list((tmp_path / "spool").iterdir()) == []


def test_reasons_do_not_grow_for_ever(tmp_path: pathlib.Path) -> None:
    waiting = spool.Spool(tmp_path)
    for number in range(100):
        waiting.keep(waiting.joined(ready(f"b{number}", "exit code 1")))

    assert len(waiting.joined(ready("b", "x")).last_exit) <= 500


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_a_report_that_cannot_be_read_stops_nobody(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "ready.json").write_bytes(content)

    assert spool.Spool(tmp_path).joined(ready("b1", "x")) == ready("b1", "x")


def test_a_disk_that_refuses_stops_nobody(tmp_path: pathlib.Path) -> None:
    (tmp_path / "spool").write_text("in the way")
    waiting = spool.Spool(tmp_path / "spool")
    waiting.keep(ready("b1", "x"))
    waiting.drop()

    assert msgspec.structs.asdict(waiting.joined(ready("b2", "y")))["last_exit"] == "y"
