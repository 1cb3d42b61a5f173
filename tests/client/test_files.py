import hashlib
import pathlib
import random

import pytest

from paddock.client import machine as machine_of
from paddock.contracts import errors
from paddock.contracts.api import streams
from tests.support import cutting_proxy, fake_gateway

MEGABYTE = 1_000_000
LIMITS = pathlib.Path("/proc/self/limits")


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def limits() -> bytes:
    return LIMITS.read_bytes()


@pytest.mark.parametrize("size", [0, 1, streams.FRAME_BYTES_MAX, 3 * MEGABYTE + 7])
async def test_bytes_come_back_as_they_were_written(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, size: int
) -> None:
    content = noise(size)

    info = await machine.files.write("/tmp/x", content, mode=0o600)

    assert (info.size, info.mode, info.sha256) == (size, 0o600, hashlib.sha256(content).hexdigest())
    assert await machine.files.read("/tmp/x") == content
    assert gateway.fleet.uploads == {}


async def test_text_is_written_as_utf_8(machine: machine_of.Machine) -> None:
    await machine.files.write("/tmp/x", "häuser")

    assert await machine.files.read("/tmp/x") == "häuser".encode()


async def test_a_file_is_read_from_an_offset_in_pieces(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    content = noise(MEGABYTE)
    gateway.fleet.put("/tmp/x", content)

    async with machine.files.open("/tmp/x", offset=5, length=400_000) as reading:
        got = b"".join([chunk async for chunk in reading])

    assert got == content[5:400_005]
    assert reading.info.size == MEGABYTE


@pytest.mark.parametrize("seed", range(3))
async def test_reading_goes_on_over_links_cut_at_any_byte(
    far_machine: machine_of.Machine,
    proxy: cutting_proxy.CuttingProxy,
    gateway: fake_gateway.FakeGateway,
    seed: int,
) -> None:
    chance = random.Random(seed)
    content = chance.randbytes(3 * MEGABYTE)
    gateway.fleet.put("/tmp/x", content)
    proxy.cuts.extend(chance.randrange(1, 600_000) for _ in range(8))

    assert await far_machine.files.read("/tmp/x") == content
    assert proxy.cut_count >= 5


async def test_a_file_that_became_another_while_a_link_was_cut_is_a_conflict(
    far_machine: machine_of.Machine, proxy: cutting_proxy.CuttingProxy, gateway: fake_gateway.FakeGateway
) -> None:
    gateway.fleet.put("/tmp/x", noise(MEGABYTE))
    proxy.cuts.append(400_000)

    async with far_machine.files.open("/tmp/x") as reading:
        await anext(reading)
        gateway.fleet.put("/tmp/x", noise(MEGABYTE, seed=1))
        with pytest.raises(errors.Conflict):
            async for _ in reading:
                pass


async def test_what_arrived_wrong_is_not_given_as_a_file(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    gateway.fleet.put("/tmp/x", b"content")
    gateway.fleet.wrong_digests["/tmp/x"] = "0" * 64

    with pytest.raises(errors.BadAnswer, match="not what the machine read"):
        await machine.files.read("/tmp/x")
    with pytest.raises(errors.BadAnswer, match="not what the machine read"):
        await machine.files.download("/tmp/x", tmp_path / "x")
    assert not (tmp_path / "x").exists()


async def test_a_file_larger_than_asked_for_is_not_read(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    gateway.fleet.put("/tmp/x", b"x" * 11)

    with pytest.raises(errors.PayloadTooLarge):
        await machine.files.read("/tmp/x", limit_bytes=10)


async def test_what_the_machine_refuses_is_the_same_fault_here(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(errors.NoSuchPath):
        await machine.files.read("/tmp/none")
    with pytest.raises(errors.IsADirectory):
        await machine.files.read("/tmp")
    with pytest.raises(errors.NoSuchPath):
        await machine.files.write("/none/x", b"")
    gateway.fleet.put("/tmp/x", b"")
    with pytest.raises(errors.BadOffset):
        await anext(machine.files.open("/tmp/x", offset=1))
    with pytest.raises(errors.NoSuchPath) as caught:
        await machine.files.download("/tmp/none", tmp_path / "x")
    assert "isLocal" not in caught.value.data


async def test_an_offline_machine_is_told_at_once(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    seen = {"lastSeenAt": "2027-01-15T08:00:00.000Z"}
    gateway.troubles["machine.fileRead"].append(errors.MachineOffline(data=seen))
    gateway.troubles["machine.fileStat"].extend(errors.MachineOffline(data=seen) for _ in range(9))

    for asking in (machine.files.read("/tmp/x"), machine.files.stat("/tmp/x")):
        with pytest.raises(errors.MachineOffline) as caught:
            await asking
        assert caught.value.data["lastSeenAt"] == "2027-01-15T08:00:00.000Z"
    assert gateway.names_asked() == ["machine.fileRead"] + ["machine.fileStat"] * 3


async def test_writing_keeps_to_what_was_expected_to_be_there(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    first = await machine.files.write("/tmp/x", b"one", expected_sha256="absent")

    with pytest.raises(errors.Conflict):
        await machine.files.write("/tmp/x", b"two", expected_sha256="absent")
    await machine.files.write("/tmp/x", b"three", expected_sha256=first.sha256)

    assert gateway.fleet.files["/tmp/x"][0] == b"three"


async def test_a_commit_whose_answer_was_lost_acts_once(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    gateway.troubles["machine.fileCommit"].extend(
        [fake_gateway.CUT_AFTER, fake_gateway.CUT_BEFORE, errors.MachineOffline(), fake_gateway.CUT_AFTER] * 2
    )

    await machine.files.write("/tmp/x", b"content")

    assert gateway.fleet.versions["/tmp/x"] == 1


async def test_folders_are_made_listed_and_removed(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await machine.files.mkdir("/tmp/d")
    for name in "cab":
        gateway.fleet.put(f"/tmp/d/{name}", b"")
    await machine.files.mkdir("/tmp/d/e")
    with pytest.raises(errors.PathExists):
        await machine.files.mkdir("/tmp/d")
    await machine.files.mkdir("/tmp/d", parents=True)

    assert [(one.name, one.kind) for one in await machine.files.list("/tmp/d")] == [
        ("a", "file"),
        ("b", "file"),
        ("c", "file"),
        ("e", "directory"),
    ]
    with pytest.raises(errors.NotEmpty):
        await machine.files.remove("/tmp/d")
    await machine.files.remove("/tmp/d", recursive=True)
    with pytest.raises(errors.NoSuchPath):
        await machine.files.stat("/tmp/d")


async def test_a_folder_of_many_pages_is_listed_whole(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    names = [f"{number:05}" for number in range(2500)]
    for name in names:
        gateway.fleet.put(f"/tmp/d/{name}", b"")

    assert [one.name for one in await machine.files.list("/tmp/d")] == names
    assert gateway.names_asked() == ["machine.fileList"] * 3


async def test_files_are_moved_looked_at_and_found(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    gateway.fleet.put("/tmp/a.py", b"a")
    gateway.fleet.put("/tmp/b.py", b"b")
    with pytest.raises(errors.PathExists):
        await machine.files.move("/tmp/a.py", "/tmp/b.py")
    await machine.files.move("/tmp/a.py", "/tmp/b.py", overwrite=True)
    await machine.files.chmod("/tmp/b.py", 0o700)

    info = await machine.files.stat("/tmp/b.py", digest=True)
    found = await machine.files.find("/tmp", pattern="*.py")

    assert (info.mode, info.sha256) == (0o700, hashlib.sha256(b"a").hexdigest())
    assert [one.path for one in found.entries] == ["/tmp/b.py"]


async def test_bad_parameters_are_refused_here(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    with pytest.raises(errors.InvalidParams, match="path"):
        await machine.files.write("", b"")
    with pytest.raises(errors.InvalidParams, match="offset"):
        machine.files.open("/tmp/x", offset=-1)
    with pytest.raises(errors.InvalidParams, match="expected"):
        await machine.files.write("/tmp/x", b"", expected_sha256="abc")
    with pytest.raises(errors.InvalidParams, match="upload"):
        await machine.files.upload(LIMITS, "/tmp/x", upload="no id")
    assert gateway.asked == []
