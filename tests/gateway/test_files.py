"""Files over the gateway: byte-identical both ways whatever breaks on the way, and never a mixture of two files."""

import asyncio
import hashlib
import os
import pathlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from paddock.bus import lifecycle
from paddock.contracts import errors, files, phases
from paddock.contracts.api import streams
from paddock.gateway import files as gateway_files
from tests.gateway import door, real_box, stream_socket, toolbox

CONTENT = b"".join(b"%07d\n" % number for number in range(400_000))
"""3.2 MB in which every part is another, and no multiple of a frame."""
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
async def box(gateway: door.Door) -> AsyncIterator[toolbox.Toolbox]:
    machine = await gateway.machine_in(phases.Phase.ACTIVE)
    async with toolbox.running(gateway, machine) as running:
        running.files["/data"] = CONTENT
        yield running


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await lifecycle.pause(0.005, asyncio.Event())


async def begin_read(socket: stream_socket.StreamSocket, box: toolbox.Toolbox, **more: Any) -> dict[str, Any]:
    opened: dict[str, Any] = await socket.call(
        "machine.fileRead", machineId=box.machine, path="/data", **more
    )
    return opened


async def begin_write(
    socket: stream_socket.StreamSocket, box: toolbox.Toolbox, upload: str = "u1"
) -> tuple[int, int]:
    """The stream, and the offset to go on at."""
    opened = await socket.call("machine.fileWrite", machineId=box.machine, path="/new", upload=upload)
    return opened["stream"], opened["received"]


async def commit(gateway: door.Door, box: toolbox.Toolbox, content: bytes = CONTENT, **more: Any) -> Any:
    digest = hashlib.sha256(content).hexdigest()
    asked = {"path": "/new", "upload": "u1", "size": len(content), "sha256": digest, **more}
    return await gateway.call("machine.fileCommit", machineId=box.machine, **asked)


async def test_a_file_is_read_whole_with_its_digest(gateway: door.Door, box: toolbox.Toolbox) -> None:
    async with stream_socket.opened(gateway) as socket:
        opened = await begin_read(socket, box)
        end = await socket.end(opened["stream"])

    assert socket.content(opened["stream"]) == CONTENT
    assert end == {"size": len(CONTENT), "sha256": DIGEST}
    assert (opened["info"]["size"], opened["info"]["modifiedAt"]) == (
        len(CONTENT),
        "2023-11-14T22:13:20.000Z",
    )


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (5, 1), (1_000_001, 700_000), (len(CONTENT), None), (len(CONTENT) - 3, 10)]
)
async def test_any_part_of_a_file_can_be_read(
    gateway: door.Door, box: toolbox.Toolbox, offset: int, length: int | None
) -> None:
    async with stream_socket.opened(gateway) as socket:
        opened = await begin_read(socket, box, offset=offset, length=length)
        await socket.end(opened["stream"])

    end = None if length is None else offset + length
    assert socket.content(opened["stream"]) == CONTENT[offset:end]


async def cut(gateway: door.Door, box: toolbox.Toolbox) -> None:
    box.cut()


async def restart(gateway: door.Door, box: toolbox.Toolbox) -> None:
    await box.down()
    await box.up()


async def restart_bus(gateway: door.Door, box: toolbox.Toolbox) -> None:
    gateway.ground.nats.restart()


BREAKS = [cut, restart, restart_bus]


@pytest.mark.parametrize("break_it", BREAKS)
@pytest.mark.parametrize(("offset", "length"), [(7, None), (7, 2_000_001), (0, len(CONTENT))])
async def test_what_is_read_is_byte_identical_whatever_breaks(
    gateway: door.Door, box: toolbox.Toolbox, break_it: Any, offset: int, length: int | None
) -> None:
    async with stream_socket.opened(gateway) as socket:
        opened = await begin_read(socket, box, offset=offset, length=length)
        stream = opened["stream"]
        for size in (400_000, 1_200_000):
            await socket.until(lambda: socket.size(stream) >= size)  # noqa: B023
            await break_it(gateway, box)
        end = await socket.end(stream)

    assert socket.content(stream) == CONTENT[offset : None if length is None else offset + length]
    assert end["sha256"] == ("" if length == 2_000_001 else DIGEST)
    asked = [params for name, params, _ in box.asked if name == files.READ.name]
    assert len(asked) > 1
    assert {one.version for one in asked[1:]} == {opened["info"]["version"]}


async def test_a_file_that_changed_while_the_machine_was_away_is_a_conflict(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        stream = (await begin_read(socket, box))["stream"]
        await socket.until(lambda: socket.size(stream) >= 400_000)
        await box.down()
        box.files["/data"] = CONTENT[::-1]
        await box.up()
        fault = await socket.fault(stream)

    assert fault["data"]["kind"] == "conflict"
    assert CONTENT.startswith(socket.content(stream))


async def test_a_reading_with_the_version_of_another_file_is_refused(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        refused = await socket.refused(
            "machine.fileRead", machineId=box.machine, path="/data", version="another"
        )
        missing = await socket.refused("machine.fileRead", machineId=box.machine, path="/nope")

    assert (refused["data"]["kind"], missing["data"]["kind"]) == ("conflict", "no_such_path")


async def test_a_file_is_written_in_parts_and_shows_when_it_is_committed(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        stream, received = await begin_write(socket, box)
        await socket.send_all(stream, CONTENT)
        end = await socket.end(stream)
        hidden = "/new" not in box.files
        info = await commit(gateway, box, mode=0o600, expectedSha256="absent")

    assert (received, end, hidden) == (0, {"received": len(CONTENT)}, True)
    assert box.files["/new"] == CONTENT
    assert info["size"] == len(CONTENT)
    assert socket.taken[stream] == sorted(set(socket.taken[stream]))
    assert socket.taken[stream][-1] == len(CONTENT)
    params = next(params for name, params, _ in box.asked if name == files.COMMIT.name)
    assert (params.mode, params.expected_sha256, params.sha256) == (0o600, "absent", DIGEST)


async def test_an_empty_file_is_a_file(gateway: door.Door, box: toolbox.Toolbox) -> None:
    async with stream_socket.opened(gateway) as socket:
        stream, _ = await begin_write(socket, box)
        await socket.send_all(stream, b"")
        assert await socket.end(stream) == {"received": 0}
        await commit(gateway, box, b"")

    assert box.files["/new"] == b""


async def test_four_parts_are_under_way_at_once_and_never_more(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        stream, _ = await begin_write(socket, box)
        box.write_pause.clear()
        for offset in range(0, streams.WINDOW_BYTES, streams.FRAME_BYTES_MAX):
            await socket.send(stream, offset, CONTENT[offset : offset + streams.FRAME_BYTES_MAX])
        await until(lambda: box.writing == 4)
        box.write_pause.set()
        await socket.until(lambda: socket.taken[stream][-1:] == [streams.WINDOW_BYTES])
        await socket.send(stream, streams.WINDOW_BYTES, CONTENT[streams.WINDOW_BYTES :][:100_000])
        await socket.send(stream, streams.WINDOW_BYTES + 100_000, kind=stream_socket.EOF)
        await socket.end(stream)

    assert box.writing_max == files.PARTS_AT_ONCE == 4
    assert bytes(box.uploads["u1"]) == CONTENT[: streams.WINDOW_BYTES + 100_000]


@pytest.mark.parametrize("break_it", BREAKS)
async def test_what_is_written_is_byte_identical_whatever_breaks(
    gateway: door.Door, box: toolbox.Toolbox, break_it: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_files, "PART_TRY_S", 0.5)
    async with stream_socket.opened(gateway) as socket:
        stream, _ = await begin_write(socket, box)
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(socket.send_all(stream, CONTENT))
            for size in (300_000, 1_500_000):
                await until(lambda: len(box.uploads.get("u1", b"")) >= size or sending.done())  # noqa: B023
                await break_it(gateway, box)
        end = await socket.end(stream)
        await commit(gateway, box)

    assert end == {"received": len(CONTENT)}
    assert box.files["/new"] == CONTENT


async def test_parts_whose_answers_were_lost_are_sent_again_and_taken_once(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        stream, _ = await begin_write(socket, box)
        box.answers_lost[files.WRITE.name] = 3
        await socket.send_all(stream, CONTENT)
        await socket.end(stream)

    assert bytes(box.uploads["u1"]) == CONTENT


async def test_an_upload_goes_on_over_another_connection(gateway: door.Door, box: toolbox.Toolbox) -> None:
    async with stream_socket.opened(gateway) as socket:
        stream, _ = await begin_write(socket, box)
        for offset in range(0, 262_144, 131_072):
            await socket.send(stream, offset, CONTENT[offset : offset + 131_072])
        await socket.until(lambda: socket.taken[stream][-1:] == [262_144])
    async with stream_socket.opened(gateway) as socket:
        stream, received = await begin_write(socket, box)
        await socket.send_all(stream, CONTENT, received)
        await socket.end(stream)
    await commit(gateway, box)

    assert received == 262_144
    assert box.files["/new"] == CONTENT


async def test_what_the_machine_refuses_ends_the_upload_with_the_reason(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        stream, _ = await begin_write(socket, box)
        await socket.send(stream, 0, b"first")
        await socket.until(lambda: socket.taken[stream] == [5])
        box.refuses[files.WRITE.name].append(errors.DiskFull("cannot write /new: the disk is full"))
        await socket.send(stream, 5, b"second")
        fault = await socket.fault(stream)
        box.refuses[files.WRITE.name].append(errors.ReadOnly())
        refused = await socket.refused("machine.fileWrite", machineId=box.machine, path="/ro", upload="u2")

    assert (fault["data"]["kind"], fault["message"]) == ("disk_full", "cannot write /new: the disk is full")
    assert refused["data"]["kind"] == "read_only"
    assert bytes(box.uploads["u1"]) == b"first"


async def test_an_upload_the_machine_knows_no_more_is_not_sent_for_ever(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        stream, _ = await begin_write(socket, box)
        await socket.send(stream, 0, b"first")
        await socket.until(lambda: socket.taken[stream] == [5])
        box.uploads.clear()
        await socket.send(stream, 5, b"second")
        fault = await socket.fault(stream)

    assert fault["data"]["kind"] == "bad_offset"


CALLS: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("machine.fileStat", {"path": "/data", "digest": True, "follow": False}, "file.stat", {"digest": True}),
    ("machine.fileList", {"path": "/", "limit": 5, "after": "a"}, "file.list", {"after": "a"}),
    ("machine.fileMkdir", {"path": "/data", "mode": 0o700, "parents": True}, "file.mkdir", {"mode": 0o700}),
    ("machine.fileChmod", {"path": "/data", "mode": 0, "recursive": True}, "file.chmod", {"recursive": True}),
    ("machine.fileFind", {"path": "/", "pattern": "*.py", "kind": "file"}, "file.find", {"pattern": "*.py"}),
    ("machine.fileMove", {"path": "/data", "to": "/b", "overwrite": True}, "file.move", {"overwrite": True}),
    ("machine.fileRemove", {"path": "/data", "recursive": True}, "file.remove", {"recursive": True}),
    ("machine.fileAbort", {"upload": "u"}, "file.abort", {"upload": "u"}),
]


@pytest.mark.parametrize(("method", "given", "name", "said"), CALLS, ids=[one[0] for one in CALLS])
async def test_a_call_is_passed_on_as_it_is(
    gateway: door.Door,
    box: toolbox.Toolbox,
    method: str,
    given: dict[str, Any],
    name: str,
    said: dict[str, Any],
) -> None:
    await gateway.call(method, machineId=box.machine, **given)

    [(asked, params, _)] = box.asked
    assert asked == name
    assert {key: getattr(params, key) for key in said} == said


@pytest.mark.parametrize(
    ("method", "name", "given"),
    [
        ("machine.fileMkdir", "file.mkdir", {"path": "/data"}),
        ("machine.fileMove", "file.move", {"path": "/data", "to": "/b"}),
        ("machine.fileRemove", "file.remove", {"path": "/data"}),
        ("machine.fileChmod", "file.chmod", {"path": "/data", "mode": 0o600}),
    ],
)
async def test_what_changes_something_has_one_call_id_however_often_it_is_asked(
    gateway: door.Door, box: toolbox.Toolbox, method: str, name: str, given: dict[str, Any]
) -> None:
    box.refuses[name].extend([errors.NoAnswer(), errors.ShuttingDown()])
    await gateway.call(method, machineId=box.machine, **given)
    box.files["/data"] = b""
    box.files.pop("/b", None)
    await gateway.call(method, machineId=box.machine, callId="mine", **given)

    call_ids = [call.call_id for _, _, call in box.asked]
    assert len(set(call_ids[:3])) == 1
    assert call_ids[0]
    assert call_ids[3] == "mine"


async def test_a_page_of_files_and_what_was_found_are_shown(gateway: door.Door, box: toolbox.Toolbox) -> None:
    box.files["/z"] = b"zz"

    page = await gateway.call("machine.fileList", machineId=box.machine, path="/")
    found = await gateway.call("machine.fileFind", machineId=box.machine, path="/", limit=1)

    assert [(one["path"], one["size"]) for one in page["entries"]] == [("/data", len(CONTENT)), ("/z", 2)]
    assert (page["isLast"], found["isComplete"], len(found["entries"])) == (True, False, 1)


BAD: list[tuple[str, dict[str, Any]]] = [
    ("machine.fileRead", {"path": "/a", "offset": -1}),
    ("machine.fileRead", {"path": "/a", "length": -1}),
    ("machine.fileRead", {"path": ""}),
    ("machine.fileRead", {"path": "/a\x00b"}),
    ("machine.fileWrite", {"path": "/a", "upload": "../x"}),
    ("machine.fileCommit", {"path": "/a", "upload": "u", "size": -1, "sha256": DIGEST}),
    ("machine.fileCommit", {"path": "/a", "upload": "u", "size": 1, "sha256": "nope"}),
    ("machine.fileCommit", {"path": "/a", "upload": "u", "size": 1, "sha256": DIGEST, "mode": 0o10000}),
    ("machine.fileRemove", {"path": "/a", "expectedSha256": "x"}),
    ("machine.fileFind", {"path": "/a", "depthMax": 0}),
    ("machine.fileList", {"path": "/a", "limit": 5001}),
    ("machine.portOpen", {"port": 0}),
    ("machine.portOpen", {"port": 65_536}),
]


async def test_what_makes_no_sense_is_refused_before_it_is_sent(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        kinds = {
            (await socket.refused(method, machineId=box.machine, **given))["data"]["kind"]
            for method, given in BAD
        }

    assert kinds == {"invalid_params"}
    assert box.asked == []


async def test_a_real_machine_takes_and_gives_a_file_although_its_daemon_is_killed_meanwhile(
    gateway: door.Door, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_files, "PART_TRY_S", 0.5)
    content = os.urandom(24 * 1024 * 1024)
    digest = hashlib.sha256(content).hexdigest()
    async with real_box.running(gateway, tmp_path) as box, stream_socket.opened(gateway) as socket:
        there = {"machineId": box.machine, "path": "~/big"}
        stream = (await socket.call("machine.fileWrite", upload="u1", **there))["stream"]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(socket.send_all(stream, content))
            await until(lambda: socket.taken[stream][-1:] > [5_000_000])
            await box.kill_daemon()
        await socket.end(stream)
        info = await socket.call(
            "machine.fileCommit", upload="u1", size=len(content), sha256=digest, mode=0o640, **there
        )
        on_disk = (box.home / "big").read_bytes() == content
        stream = (await socket.call("machine.fileRead", **there))["stream"]
        await socket.until(lambda: socket.size(stream) > 5_000_000)
        await box.kill_daemon()
        end = await socket.end(stream)
        listed = await socket.call("machine.fileList", machineId=box.machine, path="~")

    assert on_disk
    assert (info["size"], info["mode"]) == (len(content), 0o640)
    assert socket.content(stream) == content
    assert end == {"size": len(content), "sha256": digest}
    assert "big" in [one["name"] for one in listed["entries"]]
