"""The part file of an upload: ours alone, as long as what was received, with the digest of what is in it."""

import hashlib
import os
import pathlib

import pytest

from paddock.daemon import file_part, file_place
from tests.daemon import file_work
from tests.support import processes

MIB = 1024 * 1024


def created(folder: pathlib.Path) -> file_part.Part:
    name = file_part.new_name()
    part = file_part.Part(str(folder / name))
    with file_place.at(str(folder / "target"), doing="write") as place:
        part.create(place, name)
    return part


@pytest.fixture
def part(home: pathlib.Path) -> file_part.Part:
    return created(home)


def test_it_is_shut_to_others_and_hidden(part: file_part.Part) -> None:
    path = pathlib.Path(part.path)

    assert path.name.startswith(".paddock-")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("pieces", [[1], [MIB, MIB], [3 * MIB + 5], [1000] * 3000, [0, 0], [MIB // 2] * 60])
def test_the_digest_is_of_what_was_received(part: file_part.Part, pieces: list[int]) -> None:
    content = b""
    for size in pieces:
        piece = os.urandom(size)
        part.append(memoryview(piece))
        content += piece

    assert file_work.done(part.digest()) == hashlib.sha256(content).hexdigest()
    assert part.received == len(content) == pathlib.Path(part.path).stat().st_size


def test_it_goes_on_after_a_rest_and_in_another_process(part: file_part.Part) -> None:
    part.append(memoryview(b"one"))
    before = processes.open_fds()
    part.rest()
    part.append(memoryview(b"two"))
    part.rest()
    again = file_part.Part(part.path)
    again.find()
    again.append(memoryview(b"three"))

    assert again.received == 11
    assert file_work.done(again.digest()) == hashlib.sha256(b"onetwothree").hexdigest()
    again.rest()
    assert processes.open_fds() == before - 1


def test_what_a_refusal_left_of_a_piece_does_not_count(
    part: file_part.Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    part.append(memoryview(b"kept"))
    write = os.pwrite
    room = [3]

    def small(fd: int, data: memoryview, at: int) -> int:
        if not room[0]:
            raise OSError(28, "no space")
        done = write(fd, data[: room[0]], at)
        room[0] -= done
        return done

    monkeypatch.setattr(os, "pwrite", small)
    with pytest.raises(OSError, match="no space"):
        part.append(memoryview(b"12345"))
    monkeypatch.undo()

    assert pathlib.Path(part.path).read_bytes() == b"kept"
    part.append(memoryview(b"12345"))
    assert pathlib.Path(part.path).read_bytes() == b"kept12345"


def _link(path: pathlib.Path) -> None:
    path.with_name("second").hardlink_to(path)


def _exchange(path: pathlib.Path) -> None:
    path.rename(path.with_name("away"))
    path.symlink_to("away")


def _shorten(path: pathlib.Path) -> None:
    os.truncate(path, 2)


def _make_pipe(path: pathlib.Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("touch", [pathlib.Path.unlink, _link, _shorten, _make_pipe])
def test_touched_while_it_rests_it_is_lost(part: file_part.Part, touch: object) -> None:
    part.append(memoryview(b"content"))
    part.rest()
    touch(pathlib.Path(part.path))  # type: ignore[operator]

    with pytest.raises(file_part.LostError):
        part.append(memoryview(b"more"))


def test_a_link_in_its_place_is_never_written_through(part: file_part.Part) -> None:
    path = pathlib.Path(part.path)
    part.append(memoryview(b"content"))
    part.rest()
    _exchange(path)

    with pytest.raises(file_part.LostError):
        part.append(memoryview(b"more"))
    assert path.with_name("away").read_bytes() == b"content"


def test_what_took_its_name_does_not_take_the_place(part: file_part.Part, home: pathlib.Path) -> None:
    part.append(memoryview(b"content"))
    path = pathlib.Path(part.path)
    path.unlink()
    path.write_bytes(b"another")
    with file_place.at(str(home / "target"), doing="write") as place, pytest.raises(file_part.LostError):
        part.take_place(place, is_new=False)

    assert not (home / "target").exists()


def test_where_something_is_a_new_one_takes_no_place(part: file_part.Part, home: pathlib.Path) -> None:
    (home / "target").write_text("old")
    with file_place.at(str(home / "target"), doing="write") as place:
        with pytest.raises(FileExistsError):
            part.take_place(place, is_new=True)
        assert (home / "target").read_text() == "old"
        part.take_place(place, is_new=False)

    assert (home / "target").read_text() == ""
    assert not pathlib.Path(part.path).exists()


def test_a_renaming_without_replacing_works_where_the_kernel_has_no_such_call(
    home: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paddock.daemon import file_changes

    monkeypatch.setattr(file_changes, "_renameat2", lambda: None)
    first, second = created(home), created(home)
    with file_place.at(str(home / "target"), doing="write") as place:
        first.take_place(place, is_new=True)
        with pytest.raises(FileExistsError):
            second.take_place(place, is_new=True)

    assert (home / "target").exists()
