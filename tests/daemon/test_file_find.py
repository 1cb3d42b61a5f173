"""file.find: everything below a folder whose name fits, and nothing else."""

import os
import pathlib
from typing import Any

import pytest

from paddock.contracts import errors, files
from paddock.daemon import file_find
from tests.daemon import file_work


def find(path: object, **more: Any) -> files.FindResult:
    return file_work.done(file_find.find(files.FindParams(path=str(path), **more), "/nowhere"))


def relative(result: files.FindResult, top: pathlib.Path) -> list[str]:
    return [entry.path.removeprefix(f"{top}/") for entry in result.entries]


@pytest.fixture
def tree(home: pathlib.Path) -> pathlib.Path:
    for path in ("a.py", "b.txt", "d/a.py", "d/e/c.py", "d/e/f/a.py"):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text("")
    (home / "link").symlink_to("d")
    return home


def test_all_that_fits_is_found_by_path(tree: pathlib.Path) -> None:
    result = find(tree, pattern="*.py")

    assert relative(result, tree) == ["a.py", "d/a.py", "d/e/c.py", "d/e/f/a.py"]
    assert (result.is_complete, result.unreadable) == (True, 0)


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"pattern": "[ab].*", "depth_max": 1}, ["a.py", "b.txt"]),
        ({"pattern": "?.py", "depth_max": 2}, ["a.py", "d/a.py"]),
        ({"kind": "directory"}, ["d", "d/e", "d/e/f"]),
        ({"kind": "symlink"}, ["link"]),
        ({"pattern": "D"}, []),
        ({"pattern": "f"}, ["d/e/f"]),
    ],
)
def test_pattern_kind_and_depth_narrow_it(tree: pathlib.Path, more: dict[str, Any], found: list[str]) -> None:
    assert relative(find(tree, **more), tree) == found


def test_links_are_found_and_not_followed(tree: pathlib.Path) -> None:
    (tree / "d/e/up").symlink_to(tree)

    assert relative(find(tree, pattern="up"), tree) == ["d/e/up"]
    assert len(find(tree, pattern="a.py").entries) == 3


def test_the_folder_itself_may_be_reached_by_a_link(tree: pathlib.Path) -> None:
    assert relative(find(tree / "link", pattern="c.py"), tree) == ["link/e/c.py"]


def test_more_than_the_limit_is_said(tree: pathlib.Path) -> None:
    result = find(tree, pattern="*.py", limit=2)

    assert len(result.entries) == 2
    assert not result.is_complete
    assert find(tree, pattern="*.py", limit=4).is_complete


def test_folders_that_cannot_be_read_are_counted() -> None:
    with file_work.seen_by_all() as tree:
        (tree / "d/e").mkdir(parents=True)
        for path in ("a.py", "d/a.py", "d/e/c.py"):
            (tree / path).write_text("")
        (tree / "d/e").chmod(0)
        result = file_work.as_nobody(lambda: find(tree, pattern="*.py"))
        (tree / "d/e").chmod(0o755)

    assert isinstance(result, files.FindResult)
    assert relative(result, tree) == ["a.py", "d/a.py"]
    assert result.unreadable == 1


def test_names_without_utf_8_are_found_as_they_are_shown(home: pathlib.Path) -> None:
    os.close(os.open(os.fsencode(home) + b"/\xff.py", os.O_CREAT | os.O_WRONLY))
    result = find(home, pattern="*.py")

    assert [entry.name for entry in result.entries] == ["\\xff.py"]
    assert result.entries[0].name_base64


@pytest.mark.parametrize(("path", "fault"), [("a.py", errors.NotADirectory), ("missing", errors.NoSuchPath)])
def test_what_is_no_folder_cannot_be_searched(
    tree: pathlib.Path, path: str, fault: type[errors.Fault]
) -> None:
    with pytest.raises(fault, match=r"^cannot search "):
        find(tree / path)
