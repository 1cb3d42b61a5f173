"""tool.readFile: size and digest of the whole, and the part that was asked for."""

import base64
import hashlib
import os
import pathlib

import pytest

from paddock.contracts import daemon, errors
from paddock.daemon import read_file


def read(path: object, **more: object) -> daemon.ReadFileResult:
    return read_file.read(daemon.ReadFileParams(path=str(path), **more), "/nowhere")  # type: ignore[arg-type]


def test_a_text_is_answered_whole_with_size_digest_and_mode(home: pathlib.Path) -> None:
    (home / "f").write_text("héllo")
    (home / "f").chmod(0o640)
    result = read(home / "f")

    assert (result.content, result.encoding) == ("héllo", "utf-8")
    assert (result.size, result.mode, result.offset) == (6, 0o640, 0)
    assert result.sha256 == hashlib.sha256("héllo".encode()).hexdigest()


def test_length_0_answers_size_and_digest_and_no_content(home: pathlib.Path) -> None:
    (home / "f").write_text("secret")
    result = read(home / "f", length=0)

    assert (result.content, result.size) == ("", 6)
    assert result.sha256 == hashlib.sha256(b"secret").hexdigest()


def test_a_part_comes_with_the_digest_of_the_whole(home: pathlib.Path) -> None:
    whole = os.urandom(3_000_000)
    (home / "f").write_bytes(whole)
    result = read(home / "f", offset=1_000_000, length=1_500_000)

    assert result.encoding == "base64"
    assert base64.b64decode(result.content) == whole[1_000_000:2_500_000]
    assert (result.size, result.offset) == (3_000_000, 1_000_000)
    assert result.sha256 == hashlib.sha256(whole).hexdigest()


def test_beyond_the_end_there_is_nothing(home: pathlib.Path) -> None:
    (home / "f").write_text("short")

    assert read(home / "f", offset=100).content == ""
    assert read(home / "f", offset=3, length=100).content == "rt"


def test_tilde_is_the_home_directory(home: pathlib.Path) -> None:
    (home / "f").write_text("mine")

    assert read_file.read(daemon.ReadFileParams(path="~/f"), str(home)).content == "mine"


def test_more_than_one_answer_can_hold_is_refused_but_its_digest_is_not(
    home: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_file, "CONTENT_BYTES_MAX", 1000)
    (home / "f").write_bytes(b"x" * 1001)
    with pytest.raises(errors.PayloadTooLarge, match="ask for parts"):
        read(home / "f")

    assert read(home / "f", length=0).size == 1001
    assert len(read(home / "f", offset=1).content) == 1000


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("missing", errors.NoSuchPath),
        ("folder", errors.IsADirectory),
        ("file/below", errors.NotADirectory),
        ("pipe", errors.BadPath),
        ("loop", errors.BadPath),
        ("../home/file", errors.BadPath),
    ],
)
def test_what_is_no_regular_file_is_a_typed_fault(
    home: pathlib.Path, name: str, fault: type[errors.Fault]
) -> None:
    """A pipe without a writer would keep us for ever."""
    (home / "folder").mkdir()
    (home / "file").write_text("")
    (home / "loop").symlink_to("loop")
    os.mkfifo(home / "pipe")

    with pytest.raises(fault):
        read(f"{home}/{name}")


def test_a_device_is_refused() -> None:
    with pytest.raises(errors.BadPath):
        read("/dev/zero")
