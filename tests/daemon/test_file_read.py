"""file.read: the bytes of one file, the digest of all of it, and the truth about a file that changes."""

import asyncio
import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from paddock.bus import channels
from paddock.contracts import errors, files, rpc
from paddock.daemon import file_read
from tests.daemon import file_work
from tests.support import processes

MIB = 1024 * 1024


class Taker(channels.Channel):
    """The other end: keeps what it gets, and may do something after the first frame."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.content = bytearray()
        self.offsets: list[int] = []
        self.largest = 0
        self._meanwhile = meanwhile

    async def _put(self, index: int, kind: int, offset: int, data: channels.Data) -> None:
        assert kind == rpc.FrameKind.DATA
        if not index:
            self._meanwhile()
        self.content += data
        self.offsets.append(offset)
        self.largest = max(self.largest, len(data))
        self._credited(index + 1)


def begin(path: object, **more: Any) -> file_read.Reading:
    return file_read.begin(files.ReadParams(path=str(path), **more), "/nowhere")


async def read(
    path: object, meanwhile: Callable[[], object] = lambda: None, **more: Any
) -> tuple[bytes, files.ReadEnd]:
    taker = Taker(meanwhile)
    end = await begin(path, **more).run(taker)
    return bytes(taker.content), end


def content_of(path: str) -> bytes:
    return pathlib.Path(path).read_bytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def content(home: pathlib.Path) -> bytes:
    made = os.urandom(3 * MIB + 17)
    (home / "f").write_bytes(made)
    return made


async def test_a_file_comes_in_frames_with_their_offsets_and_the_digest(
    home: pathlib.Path, content: bytes
) -> None:
    taker = Taker()
    end = await begin(home / "f").run(taker)

    assert bytes(taker.content) == content
    assert end == files.ReadEnd(size=len(content), sha256=sha256(content))
    assert taker.largest == rpc.FRAME_BYTES
    assert taker.offsets == list(range(0, len(content), rpc.FRAME_BYTES))


@pytest.mark.parametrize("offset", [1, MIB, 3 * MIB + 16, 3 * MIB + 17])
async def test_resumed_at_an_offset_the_digest_is_of_the_whole(
    home: pathlib.Path, content: bytes, offset: int
) -> None:
    tail, end = await read(home / "f", offset=offset)

    assert tail == content[offset:]
    assert end == files.ReadEnd(size=len(content), sha256=sha256(content))


async def test_a_part_has_a_digest_only_where_it_is_the_whole_from_the_beginning(
    home: pathlib.Path, content: bytes
) -> None:
    part, end = await read(home / "f", offset=100, length=1000)
    head, head_end = await read(home / "f", length=1000)
    whole, whole_end = await read(home / "f", length=10 * MIB)
    nothing, nothing_end = await read(home / "f", offset=5, length=0)

    assert (part, end) == (content[100:1100], files.ReadEnd(size=len(content)))
    assert (head, head_end) == (content[:1000], files.ReadEnd(size=len(content)))
    assert (whole, whole_end.sha256) == (content, sha256(content))
    assert (nothing, nothing_end) == (b"", files.ReadEnd(size=len(content)))


async def test_an_empty_file_is_empty(home: pathlib.Path) -> None:
    (home / "f").write_bytes(b"")

    assert await read(home / "f") == (b"", files.ReadEnd(size=0, sha256=sha256(b"")))


async def test_holes_are_zeros(home: pathlib.Path) -> None:
    with (home / "f").open("wb") as sparse:
        sparse.truncate(5 * MIB)
        sparse.seek(2 * MIB)
        sparse.write(b"x")
    got, end = await read(home / "f")

    assert got == bytes(2 * MIB) + b"x" + bytes(3 * MIB - 1)
    assert end.sha256 == sha256(got)


@pytest.mark.parametrize("size", [0, 10])
def test_an_offset_beyond_the_end_is_refused_with_the_size(home: pathlib.Path, size: int) -> None:
    (home / "f").write_bytes(b"x" * size)
    with pytest.raises(errors.BadOffset) as caught:
        begin(home / "f", offset=size + 1)

    assert caught.value.data == {"sizeBytes": size}
    begin(home / "f", offset=size).close()


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("", errors.IsADirectory),
        ("pipe", errors.BadPath),
        ("missing", errors.NoSuchPath),
        ("loop", errors.BadPath),
        ("f/below", errors.NotADirectory),
    ],
)
def test_what_is_no_file_is_refused_at_once(home: pathlib.Path, path: str, fault: type[errors.Fault]) -> None:
    (home / "f").write_text("")
    os.mkfifo(home / "pipe")
    (home / "loop").symlink_to("loop")
    before = processes.open_fds()
    with pytest.raises(fault, match=r"^cannot read "):
        begin(home / path)

    assert processes.open_fds() == before


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_devices_are_refused(path: str) -> None:
    with pytest.raises(errors.BadPath):
        begin(path)


def test_without_the_right_to_read_it_is_said_so() -> None:
    with file_work.seen_by_all() as folder:
        (folder / "f").write_text("")
        (folder / "f").chmod(0)

        assert isinstance(file_work.as_nobody(lambda: begin(folder / "f")), errors.PermissionDenied)


async def test_a_file_of_proc_is_read_as_far_as_it_goes() -> None:
    text = content_of("/proc/self/limits")
    got, end = await read("/proc/self/limits")
    tail, tail_end = await read("/proc/self/limits", offset=10)
    with pytest.raises(errors.BadOffset) as caught:
        await read("/proc/self/limits", offset=len(text) + 1)

    assert (got, end) == (text, files.ReadEnd(size=len(text), sha256=sha256(text)))
    assert (tail, tail_end) == (text[10:], end)
    assert caught.value.data == {"sizeBytes": len(text)}


async def test_a_file_of_sys_ends_where_its_content_does() -> None:
    """Its size says 4096."""
    path = "/sys/kernel/mm/transparent_hugepage/enabled"
    text = content_of(path)
    got, end = await read(path)

    assert (got, end) == (text, files.ReadEnd(size=len(text), sha256=sha256(text)))


async def test_a_link_is_followed(home: pathlib.Path, content: bytes) -> None:
    (home / "link").symlink_to("f")

    assert (await read(home / "link"))[0] == content


async def test_replaced_meanwhile_the_old_file_is_read_to_its_end(home: pathlib.Path, content: bytes) -> None:
    (home / "new").write_bytes(b"new")
    got, end = await read(home / "f", lambda: (home / "new").rename(home / "f"))

    assert got == content
    assert end.sha256 == sha256(content)


async def test_removed_meanwhile_it_is_read_to_its_end(home: pathlib.Path, content: bytes) -> None:
    got, _ = await read(home / "f", (home / "f").unlink)

    assert got == content


async def test_grown_meanwhile_it_is_what_it_was_when_it_was_opened(
    home: pathlib.Path, content: bytes
) -> None:
    def append() -> None:
        with (home / "f").open("ab") as growing:
            growing.write(b"more" * MIB)

    got, end = await read(home / "f", append)

    assert got == content
    assert end == files.ReadEnd(size=len(content), sha256=sha256(content))


@pytest.mark.parametrize("more", [{}, {"offset": 3}, {"length": 2 * MIB}, {"offset": 3, "length": 2 * MIB}])
async def test_shortened_meanwhile_is_a_conflict(
    home: pathlib.Path, content: bytes, more: dict[str, int]
) -> None:
    with pytest.raises(errors.Conflict, match="written meanwhile"):
        await read(home / "f", lambda: os.truncate(home / "f", len(content) - 1), **more)


async def test_written_over_meanwhile_is_a_conflict(home: pathlib.Path, content: bytes) -> None:
    def overwrite() -> None:
        with (home / "f").open("r+b") as same:
            same.seek(10)
            same.write(b"y")

    with pytest.raises(errors.Conflict, match="written meanwhile"):
        await read(home / "f", overwrite)


async def test_written_over_and_grown_meanwhile_is_a_conflict(home: pathlib.Path, content: bytes) -> None:
    def overwrite() -> None:
        (home / "f").write_bytes(b"y" * (len(content) + 1))

    with pytest.raises(errors.Conflict, match="written meanwhile"):
        await read(home / "f", overwrite)


def test_another_version_than_asked_for_is_a_conflict(home: pathlib.Path, content: bytes) -> None:
    first = begin(home / "f")
    first.close()
    begin(home / "f", version=first.info.version).close()
    (home / "f").write_bytes(content)
    with pytest.raises(errors.Conflict) as caught:
        begin(home / "f", version=first.info.version)

    assert caught.value.data["version"] != first.info.version


@pytest.mark.parametrize("when", ["before its first await", "in the middle"])
async def test_cancelled_it_lets_go_of_the_file(home: pathlib.Path, content: bytes, when: str) -> None:
    before = processes.open_fds()
    reading = begin(home / "f")
    started = asyncio.Event()
    taker = Taker(started.set)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(reading.run(taker))
        if when == "in the middle":
            await started.wait()
        else:
            await asyncio.sleep(0)
        task.cancel()
    await processes.until(lambda: processes.open_fds() <= before)

    assert task.cancelled()


async def test_a_slow_taker_is_waited_for_with_little_in_memory(home: pathlib.Path) -> None:
    (home / "f").write_bytes(bytes(8 * MIB))
    reading = begin(home / "f")
    taker = Slow()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(reading.run(taker))
        await processes.until(lambda: taker.held == rpc.FRAME_WINDOW)
        read_so_far = reading._at
        task.cancel()

    # One was taken, one waits to be, one is read ahead.
    assert read_so_far <= 3 * file_read._SLICE_BYTES


class Slow(Taker):
    """Takes four frames and no more."""

    held = 0

    def _credited(self, received: int) -> None:
        self.held = received
