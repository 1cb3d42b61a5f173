"""file.mkdir, file.move, file.remove and file.chmod: each done whole and where it was meant, or refused with its reason."""

import hashlib
import os
import pathlib
import stat
import threading
from typing import Any

import pytest

from paddock.contracts import errors, files
from paddock.daemon import file_changes
from tests.daemon import file_work
from tests.daemon import machine as machines

OWN = "/somewhere/home/.paddock"


def mkdir(path: object, **more: Any) -> files.FileInfo:
    return file_work.done(file_changes.mkdir(files.MkdirParams(path=str(path), **more), "/nowhere"))


def move(path: object, to: object, own: str = OWN, **more: Any) -> files.FileInfo:
    params = files.MoveParams(path=str(path), to=str(to), **more)
    return file_work.done(file_changes.move(params, "/nowhere", own))


def remove(path: object, own: str = OWN, **more: Any) -> None:
    file_work.done(file_changes.remove(files.RemoveParams(path=str(path), **more), "/nowhere", own))


def chmod(path: object, mode: int, **more: Any) -> files.FileInfo:
    params = files.ChmodParams(path=str(path), mode=mode, **more)
    return file_work.done(file_changes.chmod(params, "/nowhere"))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o1777])
def test_a_folder_is_made_with_exactly_its_mode(home: pathlib.Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        info = mkdir(home / "d", mode=mode)
    finally:
        os.umask(before)

    assert (info.kind, info.mode, info.path) == ("directory", mode, str(home / "d"))
    assert stat.S_IMODE((home / "d").stat().st_mode) == mode


def test_a_folder_that_exists_is_in_the_way_unless_parents_may_exist(home: pathlib.Path) -> None:
    (home / "d").mkdir(mode=0o700)
    (home / "link").symlink_to("d")
    with pytest.raises(errors.PathExists):
        mkdir(home / "d")

    assert mkdir(home / "d", parents=True).mode == 0o700
    assert mkdir(home / "link", parents=True).kind == "directory"
    assert mkdir(home / "d/e/f", parents=True).path == f"{home}/d/e/f"


def test_a_file_is_in_the_way_of_a_folder_always(home: pathlib.Path) -> None:
    (home / "f").write_text("")
    for parents in (True, False):
        with pytest.raises(errors.PathExists):
            mkdir(home / "f", parents=parents)


def test_a_folder_below_what_is_missing_needs_parents(home: pathlib.Path) -> None:
    with pytest.raises(errors.NoSuchPath):
        mkdir(home / "a/b")


@pytest.mark.parametrize("name", ["new\nline", "bell\a", "delete\x7f"])
def test_new_names_hold_no_control_characters(home: pathlib.Path, name: str) -> None:
    (home / "f").write_text("")
    with pytest.raises(errors.BadPath, match="control character"):
        mkdir(home / name)
    with pytest.raises(errors.BadPath, match="control character"):
        move(home / "f", home / name)

    assert [path.name for path in home.iterdir()] == ["f"]


def test_an_old_name_with_a_control_character_can_be_moved_away_and_removed(home: pathlib.Path) -> None:
    (home / "new\nline").write_text("1")
    (home / "bell\a").write_text("2")
    move(home / "new\nline", home / "good")
    remove(home / "bell\a")

    assert {path.name: path.read_text() for path in home.iterdir()} == {"good": "1"}


def test_a_move_is_a_rename(home: pathlib.Path) -> None:
    (home / "a").write_text("x")
    inode = (home / "a").stat().st_ino
    info = move(home / "a", home / "b")

    assert (info.path, info.kind, info.size) == (str(home / "b"), "file", 1)
    assert (home / "b").stat().st_ino == inode
    assert not (home / "a").exists()


def test_nothing_is_overwritten_unless_it_may_be(home: pathlib.Path) -> None:
    (home / "a").write_text("new")
    (home / "b").write_text("old")
    (home / "empty").mkdir()
    (home / "folder").mkdir()
    for source, target in (("a", "b"), ("folder", "empty"), ("a", "a")):
        with pytest.raises(errors.PathExists):
            move(home / source, home / target)
    move(home / "a", home / "b", overwrite=True)
    move(home / "folder", home / "empty", overwrite=True)

    assert (home / "b").read_text() == "new"
    assert {path.name for path in home.iterdir()} == {"b", "empty"}


@pytest.mark.parametrize(
    ("source", "target", "fault"),
    [
        ("f", "full", errors.IsADirectory),
        ("full", "f", errors.NotADirectory),
        ("empty", "full", errors.NotEmpty),
        ("f", "pipe", errors.BadPath),
        ("full", "full/below", errors.BadPath),
        ("missing", "new", errors.NoSuchPath),
        ("f", "missing/new", errors.NoSuchPath),
        ("f", "f/below", errors.NotADirectory),
        ("f", "new/", errors.NotADirectory),
    ],
)
def test_a_move_that_cannot_be_says_why(
    home: pathlib.Path, source: str, target: str, fault: type[errors.Fault]
) -> None:
    (home / "f").write_text("")
    (home / "empty").mkdir()
    (home / "full/inside").mkdir(parents=True)
    os.mkfifo(home / "pipe")
    with pytest.raises(fault, match=r"^cannot move "):
        move(home / source, f"{home}/{target}", overwrite=True)

    assert {path.name for path in home.iterdir()} == {"f", "empty", "full", "pipe"}


def test_links_are_moved_and_replaced_themselves(home: pathlib.Path) -> None:
    (home / "f").write_text("kept")
    (home / "link").symlink_to("f")
    (home / "other").write_text("moved")
    info = move(home / "link", home / "renamed")
    move(home / "other", home / "renamed", overwrite=True)

    assert (info.kind, info.target) == ("symlink", "f")
    assert (home / "f").read_text() == "kept"
    assert (home / "renamed").read_text() == "moved"


def test_a_move_to_another_file_system_says_so_and_changes_nothing(machine: machines.Machine) -> None:
    mount = machine.home / "other"
    mount.mkdir()
    (machine.home / "f").write_text("x")
    script = f"""
from paddock.contracts import errors, files
from paddock.daemon import file_changes
params = files.MoveParams(path={str(machine.home / "f")!r}, to={str(mount / "f")!r})
try:
    list(file_changes.move(params, "/", "/own"))
except errors.BadPath as fault:
    print(fault.message.partition(": ")[2], flush=True)
"""
    machine.start_python("-c", script, within=machines.in_namespaces("--tmpfs", str(mount))).wait()

    said = machine.log_path.read_text()
    assert said == "they are on different file systems; copy it and remove the old one\n"
    assert (machine.home / "f").read_text() == "x"


def test_of_many_moves_to_one_new_name_one_wins(home: pathlib.Path) -> None:
    for number in range(8):
        (home / str(number)).write_text(str(number))
    outcomes: list[object] = []

    def one(number: int) -> None:
        try:
            outcomes.append(move(home / str(number), home / "target"))
        except errors.PathExists as fault:
            outcomes.append(fault)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(isinstance(outcome, files.FileInfo) for outcome in outcomes) == 1
    assert len(list(home.iterdir())) == 8


def test_what_is_not_expected_is_neither_moved_nor_removed(home: pathlib.Path) -> None:
    (home / "f").write_text("content")
    (home / "link").symlink_to("f")
    for expected in (sha256(b"another"), "absent"):
        with pytest.raises(errors.Conflict) as caught:
            remove(home / "f", expected_sha256=expected)
        assert caught.value.data == {"sha256": sha256(b"content")}
        with pytest.raises(errors.Conflict):
            move(home / "f", home / "g", expected_sha256=expected)
    with pytest.raises(errors.Conflict, match="is a link"):
        remove(home / "link", expected_sha256=sha256(b"content"))
    move(home / "f", home / "g", expected_sha256=sha256(b"content"))
    remove(home / "g", expected_sha256=sha256(b"content"))

    assert [path.name for path in home.iterdir()] == ["link"]


def test_what_changes_after_it_was_read_is_not_removed(home: pathlib.Path) -> None:
    (home / "f").write_bytes(b"x" * 3_000_000)
    params = files.RemoveParams(path=str(home / "f"), expected_sha256=sha256(b"x" * 3_000_000))
    removing = file_changes.remove(params, "/nowhere", OWN)
    next(removing)
    (home / "f").write_bytes(b"y")

    with pytest.raises(errors.Conflict):
        file_work.done(removing)
    assert (home / "f").read_bytes() == b"y"


def test_a_link_is_removed_and_never_what_it_points_at(home: pathlib.Path) -> None:
    (home / "folder").mkdir()
    (home / "folder/f").write_text("kept")
    (home / "link").symlink_to("folder")
    (home / "tree").mkdir()
    (home / "tree/link").symlink_to(home / "folder")
    remove(home / "link", recursive=True)
    remove(home / "tree", recursive=True)

    assert (home / "folder/f").read_text() == "kept"
    assert [path.name for path in home.iterdir()] == ["folder"]


def test_a_folder_with_something_in_it_needs_recursive(home: pathlib.Path) -> None:
    (home / "d/e").mkdir(parents=True)
    with pytest.raises(errors.NotEmpty):
        remove(home / "d")
    remove(home / "d/e")
    remove(home / "d")

    assert not (home / "d").exists()


@pytest.mark.parametrize(
    ("path", "fault"),
    [("missing", errors.NoSuchPath), ("f/", errors.NotADirectory), ("f/g", errors.NotADirectory)],
)
def test_a_removal_that_cannot_be_says_why(home: pathlib.Path, path: str, fault: type[errors.Fault]) -> None:
    (home / "f").write_text("")
    with pytest.raises(fault, match=r"^cannot remove "):
        remove(f"{home}/{path}")


def test_pipes_and_sockets_can_be_removed(home: pathlib.Path) -> None:
    os.mkfifo(home / "pipe")
    remove(home / "pipe")

    assert list(home.iterdir()) == []


@pytest.mark.parametrize("path", ["", "/.paddock", "/.paddock/."])
def test_what_the_daemon_lives_in_stays(home: pathlib.Path, path: str) -> None:
    own = home / ".paddock"
    own.mkdir()
    (home / "also").symlink_to(home.parent)
    for whole in (f"{home}{path}", f"{home}/also/home{path}"):
        with pytest.raises(errors.BadPath, match="the daemon lives in it"):
            remove(whole, str(own), recursive=True)
        with pytest.raises(errors.BadPath, match="the daemon lives in it"):
            move(whole, "/tmp/elsewhere", str(own))

    assert own.is_dir()


def test_the_root_stays() -> None:
    with pytest.raises(errors.BadPath, match="it is the root"):
        remove("/", recursive=True)


def test_a_mode_is_set_exactly_and_a_links_target_is_meant(home: pathlib.Path) -> None:
    (home / "f").write_text("")
    (home / "link").symlink_to("f")
    info = chmod(home / "link", 0o4751)

    assert info.mode == 0o4751
    assert stat.S_IMODE((home / "f").stat().st_mode) == 0o4751


def test_a_mode_for_all_below_passes_links_over(home: pathlib.Path) -> None:
    (home / "outside").write_text("")
    (home / "outside").chmod(0o644)
    (home / "d/e").mkdir(parents=True)
    (home / "d/e/f").write_text("")
    (home / "d/link").symlink_to(home / "outside")
    chmod(home / "d", 0o700, recursive=True)

    assert [stat.S_IMODE((home / path).stat().st_mode) for path in ("d", "d/e", "d/e/f", "outside")] == [
        0o700,
        0o700,
        0o700,
        0o644,
    ]


@pytest.mark.parametrize(("before", "mode"), [(0o755, 0o600), (0o000, 0o755)])
def test_a_mode_that_shuts_or_opens_folders_reaches_all_below(before: int, mode: int) -> None:
    with file_work.seen_by_all() as home:
        (home / "d/e").mkdir(parents=True)
        (home / "d/e/f").write_text("")
        paths = [home / "d/e/f", home / "d/e", home / "d"]
        for path in paths:
            file_work.give_away(path)
            path.chmod(before)
        outcome = file_work.as_nobody(lambda: chmod(home / "d", mode, recursive=True))
        modes = []
        for path in reversed(paths):
            modes.append(stat.S_IMODE(path.stat().st_mode))
            path.chmod(0o755)

    assert isinstance(outcome, files.FileInfo)
    assert modes == [mode] * 3


def test_without_the_right_nothing_changes_and_it_is_said_so() -> None:
    with file_work.seen_by_all() as home:
        (home / "f").write_text("")
        (home / "d").mkdir()
        (home / "mine").mkdir()
        (home / "mine/g").write_text("")
        file_work.give_away(home / "mine")
        home.chmod(0o555)
        outcomes = [
            file_work.as_nobody(lambda: remove(home / "f")),
            file_work.as_nobody(lambda: remove(home / "d")),
            file_work.as_nobody(lambda: move(home / "f", home / "g")),
            file_work.as_nobody(lambda: mkdir(home / "new")),
            file_work.as_nobody(lambda: remove(home / "mine", recursive=True)),
        ]
        home.chmod(0o755)
        left = {path.name for path in home.iterdir()}

    assert [type(outcome) for outcome in outcomes] == [errors.PermissionDenied] * 5
    assert left == {"f", "d", "mine"}


def test_only_the_owner_may_change_a_mode() -> None:
    outcome = file_work.as_nobody(lambda: chmod("/etc", 0o777))

    assert isinstance(outcome, errors.PermissionDenied)
    assert stat.S_IMODE(pathlib.Path("/etc").stat().st_mode) == 0o755


def test_a_read_only_file_system_is_said_so(machine: machines.Machine) -> None:
    mount = machine.home / "fixed"
    mount.mkdir()
    (mount / "f").write_text("")
    script = f"""
from paddock.contracts import errors, files
from paddock.daemon import file_changes as changes
path, new = {str(mount / "f")!r}, {str(mount / "new")!r}
for work in (
    changes.mkdir(files.MkdirParams(path=new), "/"),
    changes.move(files.MoveParams(path=path, to=new), "/", "/own"),
    changes.remove(files.RemoveParams(path=path), "/", "/own"),
    changes.chmod(files.ChmodParams(path=path, mode=0o600), "/"),
):
    try:
        list(work)
    except errors.Fault as fault:
        print(fault.kind, flush=True)
"""
    read_only = machines.in_namespaces("--ro-bind", str(mount), str(mount))
    machine.start_python("-c", script, within=read_only).wait()

    assert machine.log_path.read_text().split() == ["read_only"] * 4
