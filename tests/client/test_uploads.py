import asyncio
import pathlib
import random
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any, Self

import pytest

from paddock.client import client as gateway_client
from paddock.client import machine as machine_of
from paddock.client import uploads
from paddock.contracts import errors
from paddock.contracts.api import streams
from tests.support import cutting_proxy, fake_gateway

MEGABYTE = 1_000_000
LIMITS = pathlib.Path("/proc/self/limits")
"""A file whose size is said to be 0."""


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def limits() -> bytes:
    return LIMITS.read_bytes()


class Sink(bytearray):
    """An upload the fake machine takes and does not keep."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def __iadd__(self, data: Any) -> Self:  # type: ignore[misc]
        self.size += len(data)
        return self


@pytest.mark.parametrize("seed", range(3))
async def test_an_upload_goes_on_over_links_cut_at_any_byte(
    far_machine: machine_of.Machine,
    proxy: cutting_proxy.CuttingProxy,
    gateway: fake_gateway.FakeGateway,
    tmp_path: pathlib.Path,
    seed: int,
) -> None:
    chance = random.Random(seed)
    content = chance.randbytes(5 * MEGABYTE)
    (tmp_path / "x").write_bytes(content)
    proxy.cuts_up.extend(chance.randrange(200, 900_000) for _ in range(8))
    seen: list[tuple[int, int]] = []

    await far_machine.files.upload(
        tmp_path / "x", "/tmp/x", progress=lambda done, total: seen.append((done, total))
    )

    assert gateway.fleet.files["/tmp/x"][0] == content
    assert proxy.cut_count >= 5
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == ((0, len(content)), (len(content), len(content)))
    # What is sent again after a cut is what was under way: never more than a window.
    assert gateway.fleet.bytes_uploaded <= len(content) + 8 * (streams.WINDOW_BYTES + streams.FRAME_BYTES_MAX)


async def test_pieces_go_on_over_links_cut_at_any_byte(
    far_machine: machine_of.Machine, proxy: cutting_proxy.CuttingProxy, gateway: fake_gateway.FakeGateway
) -> None:
    chance = random.Random(7)
    content = chance.randbytes(4 * MEGABYTE)

    async def pieces() -> AsyncIterator[bytes]:
        begin = 0
        while begin < len(content):
            size = chance.choice([0, 1, 999, 70_000, 400_000])
            yield content[begin : begin + size]
            begin += size

    proxy.cuts_up.extend(chance.randrange(200, 900_000) for _ in range(6))

    await far_machine.files.upload(pieces(), "/tmp/x")

    assert gateway.fleet.files["/tmp/x"][0] == content
    assert proxy.cut_count >= 3


async def test_a_sender_is_never_more_than_a_window_ahead_of_the_machine(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "x").write_bytes(noise(5 * MEGABYTE))
    gateway.fleet.takes_parts = 3

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await machine.files.upload(tmp_path / "x", "/tmp/x")

    assert gateway.fleet.bytes_uploaded == 3 * streams.FRAME_BYTES_MAX
    assert gateway.fleet.bytes_offered <= 3 * streams.FRAME_BYTES_MAX + streams.WINDOW_BYTES


async def test_a_machine_that_takes_nothing_is_asked_anew(
    machine: machine_of.Machine,
    gateway: fake_gateway.FakeGateway,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uploads, "STALLED_S", 0.1)
    (tmp_path / "x").write_bytes(content := noise(3 * MEGABYTE))
    gateway.fleet.takes_parts = 7

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        uploading = group.create_task(machine.files.upload(tmp_path / "x", "/tmp/x"))
        await gateway.fleet.is_stalled.wait()
        gateway.fleet.takes_parts = None

    assert uploading.result().size == len(content)
    assert gateway.fleet.files["/tmp/x"][0] == content


async def test_copies_take_no_more_memory_the_larger_the_file(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(50 * MEGABYTE)
    gateway.fleet.put("/tmp/x", bytes(50 * MEGABYTE))
    gateway.fleet.uploads["sink"] = ("/tmp/y", Sink())
    gateway.troubles["machine.fileCommit"].append(errors.Conflict())
    tracemalloc.start()
    try:
        await machine.files.download("/tmp/x", tmp_path / "y")
        with pytest.raises(errors.Conflict):
            await machine.files.upload(tmp_path / "x", "/tmp/y", upload="sink")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert gateway.fleet.bytes_uploaded == 50 * MEGABYTE
    assert peak_bytes < 16 * MEGABYTE


async def test_an_upload_that_was_stopped_goes_on_where_it_was_in_another_client(
    machine: machine_of.Machine, machine_id: str, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "x").write_bytes(content := noise(5 * MEGABYTE))
    gateway.fleet.takes_parts = 20
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        uploading = group.create_task(machine.files.upload(tmp_path / "x", "/tmp/x"))
        await gateway.fleet.is_stalled.wait()
        uploading.cancel()
    there = gateway.fleet.bytes_uploaded
    gateway.fleet.takes_parts = None
    seen: list[int] = []

    async with gateway_client.Client(gateway.url, gateway.token) as other:
        await other.machine(machine_id).files.upload(
            tmp_path / "x", "/tmp/x", progress=lambda done, _: seen.append(done)
        )

    assert there == seen[0] == 20 * streams.FRAME_BYTES_MAX
    assert gateway.fleet.bytes_uploaded == len(content)
    assert gateway.fleet.files["/tmp/x"][0] == content


async def test_an_upload_the_machine_forgot_begins_anew(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "x").write_bytes(content := noise(5 * MEGABYTE))
    gateway.fleet.takes_parts = 20
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        uploading = group.create_task(machine.files.upload(tmp_path / "x", "/tmp/x"))
        await gateway.fleet.is_stalled.wait()
        gateway.fleet.uploads.clear()
        gateway.fleet.takes_parts = None
        gateway.cut_links()

    assert uploading.result().size == len(content)
    assert gateway.fleet.files["/tmp/x"][0] == content


async def test_an_upload_that_was_begun_with_something_else_begins_anew(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "x").write_bytes(content := noise(3 * MEGABYTE))
    gateway.fleet.uploads["mine"] = ("/tmp/x", bytearray(b"something else"))

    await machine.files.upload(tmp_path / "x", "/tmp/x", upload="mine")

    assert gateway.fleet.files["/tmp/x"][0] == content


async def test_an_upload_that_went_away_before_its_commit_begins_anew(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "x").write_bytes(content := noise(3 * MEGABYTE))
    gateway.fleet.uploads["mine"] = ("/tmp/x", bytearray(content[:MEGABYTE]))

    def progress(done: int, total: int) -> None:
        if done == total and gateway.fleet.bytes_uploaded == 2 * MEGABYTE:
            gateway.fleet.uploads.clear()

    await machine.files.upload(tmp_path / "x", "/tmp/x", upload="mine", progress=progress)

    assert gateway.fleet.files["/tmp/x"][0] == content


async def test_an_upload_of_which_the_machine_has_more_than_there_is_is_given_up(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "x").write_bytes(b"short")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"short"

    for local in (tmp_path / "x", pieces()):
        gateway.fleet.uploads["mine"] = ("/tmp/x", bytearray(b"much longer"))
        with pytest.raises(errors.Conflict, match="cannot go on with this upload"):
            await machine.files.upload(local, "/tmp/x", upload="mine")
        assert gateway.fleet.uploads == {}


async def test_a_changed_file_is_another_upload(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    names = set()
    for content in (b"one", b"three"):
        (tmp_path / "x").write_bytes(content)
        await machine.files.upload(tmp_path / "x", "/tmp/x")
        await machine.files.upload(tmp_path / "x", "/tmp/x", upload="mine")
        names |= {asked.upload for name, asked in gateway.asked if name == "machine.fileWrite"}

    assert len(names) == 3
    assert "mine" in names


@pytest.mark.parametrize("change", ["grows", "shrinks", "is written", "is replaced", "goes"])
async def test_a_local_file_that_changes_while_it_is_read_is_not_put_in_place_and_no_part_of_it_stays(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path, change: str
) -> None:
    path = tmp_path / "x"
    path.write_bytes(noise(4 * MEGABYTE))
    is_changed = False

    def progress(done: int, _: int) -> None:
        nonlocal is_changed
        if done < MEGABYTE or is_changed:
            return
        is_changed = True
        match change:
            case "grows":
                with path.open("ab") as file:
                    file.write(b"more")
            case "shrinks":
                with path.open("r+b") as file:
                    file.truncate(2 * MEGABYTE)
            case "is written":
                with path.open("r+b") as file:
                    file.write(b"other")
            case "is replaced":
                (tmp_path / "y").write_bytes(noise(4 * MEGABYTE, seed=1))
                (tmp_path / "y").replace(path)
            case _:
                path.unlink()

    with pytest.raises(errors.NoSuchPath if change == "goes" else errors.Conflict) as caught:
        await machine.files.upload(path, "/tmp/x", progress=progress)

    assert caught.value.data["isLocal"] is True
    assert "/tmp/x" not in gateway.fleet.files
    assert gateway.fleet.uploads == {}


async def test_a_full_disk_of_the_machine_ends_an_upload_and_keeps_what_is_there(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "x").write_bytes(noise(3 * MEGABYTE))
    gateway.fleet.disk_bytes = MEGABYTE

    with pytest.raises(errors.DiskFull):
        await machine.files.upload(tmp_path / "x", "/tmp/x")
    gateway.fleet.disk_bytes = 1 << 40
    await machine.files.upload(tmp_path / "x", "/tmp/x")

    assert gateway.fleet.bytes_uploaded == 3 * MEGABYTE


async def test_what_is_no_file_here_is_not_uploaded(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    expected = {
        tmp_path: errors.IsADirectory,
        tmp_path / "none": errors.NoSuchPath,
        tmp_path / "none" / "x": errors.NoSuchPath,
        pathlib.Path("/dev/zero"): errors.BadPath,
        tmp_path / "a\0b": errors.BadPath,
        tmp_path / ("x" * 300): errors.BadPath,
    }

    for path, kind in expected.items():
        with pytest.raises(kind, match="cannot") as caught:
            await machine.files.upload(path, "/tmp/x")
        assert caught.value.data["isLocal"] is True
    assert gateway.asked == []


async def test_a_file_that_says_it_is_empty_and_is_not_goes_whole(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    content = limits()

    await machine.files.upload(LIMITS, "/tmp/x")

    assert gateway.fleet.files["/tmp/x"][0] == content
