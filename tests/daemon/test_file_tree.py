"""Going through trees: however deep, wide or moving, nothing outside is touched and no folder stays open."""

import contextlib
import os
import pathlib
import resource
import shutil
from collections.abc import Iterator

import pytest

from paddock.contracts import errors
from paddock.daemon import file_place, file_slices, file_tree
from tests.daemon import file_work
from tests.daemon import machine as machines
from tests.support import processes


@contextlib.contextmanager
def place_of(path: pathlib.Path) -> Iterator[file_place.Place]:
    with file_place.at(str(path), doing="remove it") as place:
        yield place


def removal(place: file_place.Place) -> "file_slices.Slices[None]":
    return file_tree.remove(place, "remove it")


def grow(top: pathlib.Path, depth: int) -> None:
    """A chain of folders, deeper than a path may be long."""
    top.mkdir()
    folder = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=folder)
        below = os.open("deeper", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)


def test_a_tree_deeper_than_there_are_files_to_open_is_removed(home: pathlib.Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    grow(home / "d", 3000)
    used = max(int(path.name) for path in pathlib.Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, limits[1]))
    try:
        with place_of(home / "d") as place:
            file_work.done(removal(place))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert list(home.iterdir()) == []


def test_a_wide_tree_is_removed_with_all_kinds_in_it(home: pathlib.Path) -> None:
    for number in range(3 * file_tree.BATCH):
        (home / f"d/{number % 7}/{number}").mkdir(parents=True)
        (home / f"d/{number % 7}/{number}/f").write_text("")
        (home / f"d/{number % 7}/link{number}").symlink_to("/")
    os.mkfifo(home / "d/pipe")
    with place_of(home / "d") as place:
        file_work.done(removal(place))

    assert list(home.iterdir()) == []


def test_a_folder_moved_out_while_it_is_emptied_ends_the_work_and_nothing_beside_it_is_touched(
    home: pathlib.Path,
) -> None:
    """Going up by `..` would otherwise go on in the folder it was moved to."""
    (home / "elsewhere").mkdir()
    (home / "elsewhere/kept").write_text("")
    for number in range(3):
        (home / f"d/{number}/below").mkdir(parents=True)
        for file in range(file_tree.BATCH * 3):
            (home / f"d/{number}/below/{file}").write_text("")
    with place_of(home / "d") as place:
        work = removal(place)
        emptied = home
        while emptied == home:
            next(work)
            below = [path for path in (home / "d").glob("*/below") if 0 < len(list(path.iterdir())) < 700]
            emptied = below[0] if below else home
        emptied.rename(home / "elsewhere/moved")
        with pytest.raises(errors.Conflict, match="moved away"):
            file_work.done(work)

    assert {path.name for path in (home / "elsewhere").iterdir()} == {"kept", "moved"}


def test_a_folder_exchanged_for_a_link_is_unlinked_and_not_entered(home: pathlib.Path) -> None:
    (home / "outside").mkdir()
    (home / "outside/kept").write_text("")
    for number in range(4):
        (home / f"d/{number}").mkdir(parents=True)
        (home / f"d/{number}/f").write_text("")
    with place_of(home / "d") as place:
        work = removal(place)
        next(work)
        for number in range(4):
            if (home / f"d/{number}").exists():
                shutil.rmtree(home / f"d/{number}")
                (home / f"d/{number}").symlink_to(home / "outside")
        file_work.done(work)

    assert (home / "outside/kept").exists()
    assert not (home / "d").exists()


def test_what_others_put_in_meanwhile_is_removed_too(home: pathlib.Path) -> None:
    for number in range(3):
        (home / f"d/{number}").mkdir(parents=True)
        (home / f"d/{number}/f").write_text("")
    with place_of(home / "d") as place:
        work = removal(place)
        for number in range(5):
            next(work)
            left = [path for path in (home / "d").iterdir() if path.is_dir()]
            (left[0] / f"late{number}").write_text("")
        file_work.done(work)

    assert list(home.iterdir()) == []


def test_stopped_in_the_middle_it_leaves_nothing_open(home: pathlib.Path) -> None:
    for number in range(20):
        (home / f"d/{number}/e").mkdir(parents=True)
    before = processes.open_fds()
    with place_of(home / "d") as place:
        work = removal(place)
        for _ in range(5):
            next(work)
        work.close()

    assert (home / "d").exists()
    assert processes.open_fds() == before


def test_another_file_system_in_it_stays(machine: machines.Machine) -> None:
    mount = machine.home / "d/mount"
    mount.mkdir(parents=True)
    script = f"""
import pathlib
from paddock.contracts import errors, files
from paddock.daemon import file_changes
(pathlib.Path({str(mount)!r}) / "kept").write_text("")
params = files.RemoveParams(path={str(machine.home / "d")!r}, recursive=True)
try:
    list(file_changes.remove(params, "/", "/own"))
except errors.InUse as fault:
    print((pathlib.Path({str(mount)!r}) / "kept").exists(), fault.kind, flush=True)
"""
    machine.start_python("-c", script, within=machines.in_namespaces("--tmpfs", str(mount))).wait()

    assert machine.log_path.read_text() == "True in_use\n"


def test_a_tree_that_may_not_be_removed_says_so_and_keeps_its_shape() -> None:
    with file_work.seen_by_all() as home:
        (home / "d/e").mkdir(parents=True)
        (home / "d/e/f").write_text("")

        def work() -> None:
            with place_of(home / "d") as place:
                file_work.done(removal(place))

        outcome = file_work.as_nobody(work)
        is_there = (home / "d/e/f").exists()

    assert isinstance(outcome, errors.PermissionDenied)
    assert is_there


def test_modes_of_a_deep_tree_are_set_to_the_bottom(home: pathlib.Path) -> None:
    grow(home / "d", 1500)
    with place_of(home / "d") as place:
        file_work.done(file_tree.chmod(place, 0o711, "change it"))
        folder = os.open(home / "d", os.O_RDONLY)
        modes = []
        for _ in range(1500):
            modes.append(os.fstat(folder).st_mode & 0o777)
            below = os.open("deeper", os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = below
        modes.append(os.stat("leaf", dir_fd=folder).st_mode & 0o777)
        os.close(folder)
        assert set(modes) == {0o711}
        file_work.done(removal(place))
