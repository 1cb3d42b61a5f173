import asyncio
import pathlib
import random

import pytest

from paddock.client import client as gateway_client
from paddock.client import downloads, local_files, patience
from paddock.client import machine as machine_of
from paddock.contracts import errors
from tests.support import cutting_proxy, fake_gateway

MEGABYTE = 1_000_000


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def names_in(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def parts(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.iterdir() if path.name.endswith(downloads.PART_SUFFIX)]


async def stopped_download(
    machine: machine_of.Machine, local: pathlib.Path, after_bytes: int = 2 * MEGABYTE
) -> None:
    """One that is cancelled in the middle."""

    async def get() -> None:
        task = asyncio.current_task()
        assert task is not None

        def progress(done: int, _: int) -> None:
            if done >= after_bytes:
                task.cancel()

        await machine.files.download("/tmp/x", local, progress=progress)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(get())


def local_umask() -> int:
    text = pathlib.Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("Umask:")).split()[1], 8)


@pytest.mark.parametrize("size", [0, 1, 3 * MEGABYTE + 7])
async def test_a_download_is_the_file_and_leaves_nothing_beside_it(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path, size: int
) -> None:
    content = noise(size)
    gateway.fleet.put("/tmp/x", content, 0o750)
    seen: list[tuple[int, int]] = []

    info = await machine.files.download(
        "/tmp/x", tmp_path / "x", progress=lambda done, total: seen.append((done, total))
    )

    assert info.size == size
    assert (tmp_path / "x").read_bytes() == content
    assert names_in(tmp_path) == ["x"]
    assert seen[-1] == (size, size)


@pytest.mark.parametrize("seed", range(3))
async def test_a_download_goes_on_over_links_cut_at_any_byte(
    far_machine: machine_of.Machine,
    proxy: cutting_proxy.CuttingProxy,
    gateway: fake_gateway.FakeGateway,
    tmp_path: pathlib.Path,
    seed: int,
) -> None:
    chance = random.Random(seed)
    content = chance.randbytes(4 * MEGABYTE)
    gateway.fleet.put("/tmp/x", content)
    proxy.cuts.extend(chance.randrange(1, 900_000) for _ in range(8))

    await far_machine.files.download("/tmp/x", tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == content
    assert proxy.cut_count >= 5


async def test_a_download_that_was_stopped_goes_on_where_it_was_in_another_client(
    machine: machine_of.Machine, machine_id: str, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    content = noise(6 * MEGABYTE)
    gateway.fleet.put("/tmp/x", content)
    (tmp_path / "x").write_bytes(b"the old one")
    await stopped_download(machine, tmp_path / "x")
    [part] = parts(tmp_path)
    there = part.stat().st_size
    old = (tmp_path / "x").read_bytes()
    seen: list[int] = []

    async with gateway_client.Client(gateway.url, gateway.token) as other:
        await other.machine(machine_id).files.download(
            "/tmp/x", tmp_path / "x", progress=lambda done, _: seen.append(done)
        )

    assert old == b"the old one"
    assert 0 < there == seen[0] < len(content)
    assert (tmp_path / "x").read_bytes() == content
    assert names_in(tmp_path) == ["x"]


async def test_a_part_of_another_version_is_not_gone_on_with(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    gateway.fleet.put("/tmp/x", noise(6 * MEGABYTE))
    await stopped_download(machine, tmp_path / "x")
    gateway.fleet.put("/tmp/x", newer := noise(6 * MEGABYTE, seed=1))

    await machine.files.download("/tmp/x", tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == newer
    assert names_in(tmp_path) == ["x"]


async def test_a_part_that_was_spoiled_is_got_anew(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    content = noise(6 * MEGABYTE)
    gateway.fleet.put("/tmp/x", content)
    for spoiled in (b"other", b"longer than the whole" * MEGABYTE):
        await stopped_download(machine, tmp_path / "x")
        [part] = parts(tmp_path)
        with part.open("r+b") as file:
            file.write(spoiled)

        await machine.files.download("/tmp/x", tmp_path / "x")

        assert (tmp_path / "x").read_bytes() == content


async def test_a_file_that_changes_while_it_is_downloaded_comes_as_the_newest(
    far_machine: machine_of.Machine,
    proxy: cutting_proxy.CuttingProxy,
    gateway: fake_gateway.FakeGateway,
    tmp_path: pathlib.Path,
) -> None:
    gateway.fleet.put("/tmp/x", noise(6 * MEGABYTE))
    newer = noise(5 * MEGABYTE, seed=1)
    proxy.cuts.append(3 * MEGABYTE)

    def progress(done: int, total: int) -> None:
        if done > MEGABYTE and total == 6 * MEGABYTE:
            gateway.fleet.put("/tmp/x", newer)

    await far_machine.files.download("/tmp/x", tmp_path / "x", progress=progress)

    assert (tmp_path / "x").read_bytes() == newer
    assert names_in(tmp_path) == ["x"]


async def test_a_download_keeps_the_bits_of_the_target_and_gives_a_new_one_those_of_the_file(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    gateway.fleet.put("/tmp/x", b"#!/bin/sh\n", 0o4750)
    (tmp_path / "old").write_bytes(b"")
    (tmp_path / "old").chmod(0o604)

    await machine.files.download("/tmp/x", tmp_path / "old")
    await machine.files.download("/tmp/x", tmp_path / "new")

    assert (tmp_path / "old").stat().st_mode & 0o7777 == 0o604
    assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o750 & ~local_umask()


async def test_a_download_follows_a_link_and_leaves_it(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    gateway.fleet.put("/tmp/x", b"new")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("folder/real")

    await machine.files.download("/tmp/x", tmp_path / "link")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "real").read_bytes() == b"new"


async def test_where_no_file_can_be_nothing_is_downloaded(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    gateway.fleet.put("/tmp/x", b"content")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    expected = {
        tmp_path: errors.IsADirectory,
        tmp_path / "none" / "x": errors.NoSuchPath,
        tmp_path / "file" / "x": errors.NotADirectory,
        pathlib.Path("/dev/null"): errors.BadPath,
        tmp_path / "a\0b": errors.BadPath,
        tmp_path / "loop": errors.BadPath,
    }

    for path, kind in expected.items():
        with pytest.raises(kind, match="cannot") as caught:
            await machine.files.download("/tmp/x", path)
        assert caught.value.data["isLocal"] is True
    assert gateway.asked == []


async def test_a_long_name_has_a_part_that_fits(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    gateway.fleet.put("/tmp/x", noise(6 * MEGABYTE))
    target = tmp_path / ("ä" * 127)
    await stopped_download(machine, target)

    await machine.files.download("/tmp/x", target)

    assert names_in(tmp_path) == [target.name]


async def test_a_full_local_disk_is_told_as_such_and_the_download_goes_on_later(
    machine: machine_of.Machine,
    gateway: fake_gateway.FakeGateway,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = noise(6 * MEGABYTE)
    gateway.fleet.put("/tmp/x", content)
    took = local_files.Part._took

    def took_until_full(part: local_files.Part, offset: int, data: bytes | memoryview) -> None:
        if offset > 2 * MEGABYTE:
            raise OSError(28, "No space left on device")
        took(part, offset, data)

    with monkeypatch.context() as full:
        full.setattr(local_files.Part, "_took", took_until_full)
        with pytest.raises(errors.DiskFull, match="disk of this computer is full") as caught:
            await machine.files.download("/tmp/x", tmp_path / "x")
    gateway.asked.clear()
    await machine.files.download("/tmp/x", tmp_path / "x")

    assert caught.value.data["isLocal"] is True
    assert (tmp_path / "x").read_bytes() == content
    assert next(asked.offset for name, asked in gateway.asked if name == "machine.fileRead") > 2 * MEGABYTE


async def test_a_target_nobody_may_write_is_told_before_anything_is_read(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    gateway.fleet.put("/tmp/x", b"content")

    with pytest.raises((errors.PermissionDenied, errors.ReadOnly, errors.NoSuchPath)) as caught:
        await machine.files.download("/tmp/x", "/proc/self/x")

    assert caught.value.data["isLocal"] is True
    assert "machine.fileRead" not in gateway.names_asked()


async def test_a_gateway_that_stays_away_ends_a_copy_that_can_go_on_later(
    far_machine: machine_of.Machine,
    proxy: cutting_proxy.CuttingProxy,
    gateway: fake_gateway.FakeGateway,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.1)
    content = noise(6 * MEGABYTE)
    gateway.fleet.put("/tmp/x", content)
    proxy.cuts.append(3 * MEGABYTE)
    stopping: list[asyncio.Task[None]] = []

    def progress(done: int, _: int) -> None:
        if done > MEGABYTE and not stopping:
            stopping.append(asyncio.create_task(gateway.stop()))

    with pytest.raises(errors.GatewayUnreachable):
        await far_machine.files.download("/tmp/x", tmp_path / "x", progress=progress)
    await stopping[0]
    await gateway.start()
    await far_machine.files.download("/tmp/x", tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == content


@pytest.mark.parametrize("fault", [errors.PermissionDenied(), errors.NoSuchPath(), errors.BadPath()])
async def test_a_file_that_cannot_be_opened_in_the_machine_leaves_nothing_here(
    machine: machine_of.Machine,
    gateway: fake_gateway.FakeGateway,
    tmp_path: pathlib.Path,
    fault: errors.Fault,
) -> None:
    gateway.fleet.put("/tmp/x", b"content")
    gateway.troubles["machine.fileRead"].append(fault)

    with pytest.raises(type(fault)):
        await machine.files.download("/tmp/x", tmp_path / "x")
    with pytest.raises(errors.NoSuchPath):
        await machine.files.download("/tmp/none", tmp_path / "x")

    assert names_in(tmp_path) == []


async def test_what_came_of_a_file_stays_when_it_cannot_be_opened_for_now(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    gateway.fleet.put("/tmp/x", noise(6 * MEGABYTE))
    await stopped_download(machine, tmp_path / "x")
    gateway.troubles["machine.fileRead"].append(errors.PermissionDenied())

    with pytest.raises(errors.PermissionDenied):
        await machine.files.download("/tmp/x", tmp_path / "x")

    assert [part.stat().st_size > MEGABYTE for part in parts(tmp_path)] == [True]
