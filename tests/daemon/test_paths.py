"""What callers may send as a path."""

import errno

import pytest

from paddock.contracts import errors
from paddock.daemon import paths


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/a/b", "/a/b"),
        ("/a//b/./c", "/a/b/c"),
        ("~", "/home/me"),
        ("~/a", "/home/me/a"),
        ("/a..b/..c", "/a..b/..c"),
        ("/~/a", "/~/a"),
    ],
)
def test_absolute_and_tilde_paths_are_resolved(path: str, meant: str) -> None:
    assert paths.resolve(path, "/home/me") == meant


@pytest.mark.parametrize("path", ["a", "./a", "~me/a", "/a/../b", "..", "~/..", "/a\0", "/\ud800"])
def test_every_other_path_is_refused(path: str) -> None:
    with pytest.raises(errors.BadPath, match="cannot use"):
        paths.resolve(path, "/home/me")


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (errno.ENOSPC, errors.DiskFull),
        (errno.EDQUOT, errors.DiskFull),
        (errno.EROFS, errors.ReadOnly),
        (errno.EACCES, errors.PermissionDenied),
        (errno.EIO, errors.InputOutput),
    ],
)
def test_refusals_of_the_file_system_have_their_fault(number: int, fault: type[errors.Fault]) -> None:
    made = paths.fault(OSError(number, "Said By Libc"), "write /f")

    assert type(made) is fault
    assert made.message == "cannot write /f: said by libc"
