"""Where a change takes place: one open folder, whatever becomes of the path."""

import os
import pathlib
import stat

import pytest

from paddock.contracts import errors
from paddock.daemon import file_place
from tests.support import processes


def test_a_change_lands_in_the_folder_that_was_opened_though_a_link_takes_its_place(
    home: pathlib.Path,
) -> None:
    folder, elsewhere = home / "folder", home / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    with file_place.at(str(folder / "new"), doing="make it") as place:
        folder.rename(home / "moved")
        folder.symlink_to(elsewhere)
        os.mkdir(place.name, dir_fd=place.folder)

    assert [path.name for path in (home / "moved").iterdir()] == ["new"]
    assert list(elsewhere.iterdir()) == []


def test_links_on_the_way_are_followed_absolute_and_relative(home: pathlib.Path) -> None:
    (home / "a/b").mkdir(parents=True)
    (home / "absolute").symlink_to(home / "a")
    (home / "a/relative").symlink_to("../a/./b")
    with file_place.at(str(home / "absolute/relative/f"), doing="write") as place:
        assert place.folder_path() == str(home / "a/b")
        assert place.name == "f"


def test_a_link_at_the_end_is_the_place_itself_unless_it_is_to_be_followed(home: pathlib.Path) -> None:
    (home / "link").symlink_to("folder/file")
    (home / "folder").mkdir()
    with file_place.at(str(home / "link"), doing="write") as place:
        assert place.name == "link"
    with file_place.at(str(home / "link"), doing="write", follow=True) as place:
        assert (place.folder_path(), place.name) == (str(home / "folder"), "file")


@pytest.mark.parametrize("follow", [True, False])
def test_a_loop_of_links_is_said_so(home: pathlib.Path, follow: bool) -> None:
    (home / "a").symlink_to("b")
    (home / "b").symlink_to("a")

    with (
        pytest.raises(errors.BadPath, match="cannot write: too many levels of symbolic links"),
        file_place.at(str(home / "a" / "f"), doing="write", follow=follow),
    ):
        pass


def test_a_link_of_proc_leads_to_no_place(home: pathlib.Path) -> None:
    """Its text is no path: followed as one, a change would land where nobody meant it."""
    with (home / "open").open("w") as held:
        (home / "open").rename(home / "renamed")
        for path in (
            f"/proc/self/fd/{held.fileno()}",
            f"/proc/{os.getpid()}/cwd/f",
            f"/proc/{os.getpid()}/root/f",
        ):
            with (
                pytest.raises(errors.BadPath, match="through a link of /proc"),
                file_place.at(path, doing="write", follow=True),
            ):
                pass


def test_a_missing_folder_is_made_only_where_that_was_asked_for(home: pathlib.Path) -> None:
    path = str(home / "a/b/c")
    with pytest.raises(errors.NoSuchPath), file_place.at(path, doing="write"):
        pass
    with file_place.at(path, doing="write", parents=True) as place:
        assert place.look() is None

    assert stat.S_IMODE((home / "a/b").stat().st_mode) == 0o755
    assert not (home / "a/b/c").exists()


def test_a_folder_with_a_control_character_in_its_name_is_not_made(home: pathlib.Path) -> None:
    with (
        pytest.raises(errors.BadPath, match="control character"),
        file_place.at(str(home / "a\nb/c"), doing="write", parents=True),
    ):
        pass

    assert list(home.iterdir()) == []


def test_a_file_on_the_way_is_no_folder(home: pathlib.Path) -> None:
    (home / "f").write_text("")

    for parents in (True, False):
        with (
            pytest.raises(errors.NotADirectory),
            file_place.at(str(home / "f/g"), doing="write", parents=parents),
        ):
            pass


def test_the_root_is_a_place_too() -> None:
    with file_place.at("/", doing="look") as place:
        found = place.look()

        assert found is not None
        assert stat.S_ISDIR(found.st_mode)
        assert place.folder_path() == "/"


def test_nothing_stays_open(home: pathlib.Path) -> None:
    before = processes.open_fds()
    for path in (home / "a/b", home / "missing/b/c", home):
        try:
            with file_place.at(str(path), doing="write", follow=True):
                pass
        except errors.NoSuchPath:
            pass

    assert processes.open_fds() == before
