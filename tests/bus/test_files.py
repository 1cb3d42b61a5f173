"""Private files."""

import os
import pathlib
import stat

import pytest

from paddock.bus import files


def test_a_private_file_is_its_owners_whatever_the_umask(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "secret"
    before = os.umask(0)
    try:
        files.write_private(path, "hush")
    finally:
        os.umask(before)

    assert path.read_text() == "hush"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_replacing_a_file_makes_it_private_and_leaves_nothing_beside_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)

    files.write_private(path, b"new")

    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_no_partial_one(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "taken"
    path.mkdir()

    with pytest.raises(OSError, match="directory"):
        files.write_private(path, "new")

    assert path.is_dir()
    assert list(tmp_path.iterdir()) == [path]
