"""What a command wrote, on disk in segments."""

import os
import pathlib
import shutil
from collections.abc import Iterator

import pytest

from paddock.daemon import output

SEGMENT = 4096


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "x1"
    path.mkdir()
    return path


@pytest.fixture
def folder_fd(folder: pathlib.Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY)
    yield fd
    os.close(fd)


def spool(folder_fd: int, limit_bytes: int = 16 * SEGMENT) -> output.Spool:
    return output.Spool(folder_fd, "stdout", segment_bytes=SEGMENT, limit_bytes=limit_bytes)


def pattern(size: int) -> bytes:
    return b"".join(b"%07d\n" % number for number in range(size // 8 + 1))[:size]


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_written_is_nothing_on_disk(folder: pathlib.Path, folder_fd: int) -> None:
    spool(folder_fd).close()
    reader = output.Reader(folder, "stdout", SEGMENT)

    assert names(folder) == []
    assert reader.bounds() == (0, 0)
    assert reader.read(0, 10) == b""


@pytest.mark.parametrize("piece", [1000, SEGMENT, 3 * SEGMENT + 1])
def test_what_was_written_is_read_back_from_every_offset(
    folder: pathlib.Path, folder_fd: int, piece: int
) -> None:
    data = pattern(5 * SEGMENT + 77)
    writing = spool(folder_fd)
    for at in range(0, len(data), piece):
        assert writing.write(memoryview(data[at : at + piece])) == len(data[at : at + piece])
    reader = output.Reader(folder, "stdout", SEGMENT)
    offsets = [0, 1, SEGMENT - 1, SEGMENT, 2 * SEGMENT + 5, len(data) - 1, len(data), len(data) + 1]

    assert names(folder) == [f"stdout.{index:06d}" for index in range(6)]
    assert [reader.read(at, 1 << 20) for at in offsets] == [data[at:] for at in offsets]
    assert reader.read(10, 20) == data[10:30]
    assert reader.bounds() == (0, len(data))


def test_a_reader_sees_what_was_added_meanwhile(folder: pathlib.Path, folder_fd: int) -> None:
    writing = spool(folder_fd)
    reader = output.Reader(folder, "stdout", SEGMENT)
    writing.write(memoryview(b"first"))
    before = reader.read(0, 100)
    writing.write(memoryview(b" second"))

    assert before == b"first"
    assert reader.read(5, 100) == b" second"


def test_beyond_the_limit_the_oldest_go_and_the_last_of_it_stay(folder: pathlib.Path, folder_fd: int) -> None:
    data = pattern(40 * SEGMENT + 100)
    writing = spool(folder_fd)
    writing.write(memoryview(data))
    reader = output.Reader(folder, "stdout", SEGMENT)
    first, size = reader.bounds()

    assert size == len(data)
    assert 16 * SEGMENT <= size - first <= 17 * SEGMENT
    assert reader.read(first, size) == data[first:]
    with pytest.raises(output.GivenUpError) as given_up:
        reader.read(first - 1, 10)
    assert (given_up.value.first_offset, given_up.value.size_bytes) == (first, size)


def test_a_segment_that_is_being_read_is_read_to_its_end(folder: pathlib.Path, folder_fd: int) -> None:
    data = pattern(40 * SEGMENT)
    writing = spool(folder_fd)
    writing.write(memoryview(data[:SEGMENT]))
    reader = output.Reader(folder, "stdout", SEGMENT)
    begun = reader.read(0, 100)
    writing.write(memoryview(data[SEGMENT:]))

    assert begun + reader.read(100, SEGMENT - 100) == data[:SEGMENT]


def test_a_new_spool_of_another_stream_does_not_mix(folder: pathlib.Path, folder_fd: int) -> None:
    spool(folder_fd).write(memoryview(b"out"))
    output.Spool(folder_fd, "stderr", segment_bytes=SEGMENT, limit_bytes=SEGMENT).write(memoryview(b"err"))

    assert output.Reader(folder, "stdout", SEGMENT).read(0, 10) == b"out"
    assert output.Reader(folder, "stderr", SEGMENT).read(0, 10) == b"err"


def test_files_that_are_no_segments_are_passed_over(folder: pathlib.Path, folder_fd: int) -> None:
    spool(folder_fd).write(memoryview(b"out"))
    (folder / "stdout.part").write_text("x")
    (folder / "record.jsonl").write_text("x")

    assert output.Reader(folder, "stdout", SEGMENT).bounds() == (0, 3)


def test_a_removed_folder_takes_everything_and_keeps_nothing(folder: pathlib.Path, folder_fd: int) -> None:
    writing = spool(folder_fd)
    writing.write(memoryview(b"x" * 100))
    shutil.rmtree(folder)
    taken = writing.write(memoryview(b"x" * 3 * SEGMENT))

    assert taken == 3 * SEGMENT
    assert writing.total_bytes == 3 * SEGMENT + 100
    with pytest.raises(FileNotFoundError):
        output.Reader(folder, "stdout", SEGMENT).bounds()


def test_a_disk_that_takes_only_a_part_says_how_much(
    folder: pathlib.Path, folder_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = spool(folder_fd)
    write, left = os.write, [3 * SEGMENT // 2]

    def short(fd: int, data: memoryview) -> int:
        if not left[0]:
            raise OSError(28, "No space left on device")
        done = write(fd, data[: left[0]])
        left[0] -= done
        return done

    monkeypatch.setattr(os, "write", short)
    done = writing.write(memoryview(b"x" * 3 * SEGMENT))
    with pytest.raises(OSError, match="No space"):
        writing.write(memoryview(b"x"))
    left[0] = 1 << 30

    assert done == 3 * SEGMENT // 2
    assert writing.write(memoryview(b"y" * SEGMENT)) == SEGMENT
    kept = output.Reader(folder, "stdout", SEGMENT).read(0, 1 << 20)
    assert kept == b"x" * (3 * SEGMENT // 2) + b"y" * SEGMENT


def test_segments_are_a_sixteenth_of_the_limit_within_bounds() -> None:
    sizes = [output.segment_bytes_for(limit) for limit in (1, 64 * 1024, 1 << 20, 1 << 30, 1 << 40)]

    assert sizes == [4096, 4096, 65536, 16 << 20, 16 << 20]
