"""Commands asked for over the gateway: each starts once, and what it writes is followed to its end whatever breaks."""

import asyncio
import base64
import contextlib
import pathlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from paddock.bus import lifecycle
from paddock.contracts import errors, executions, ids, phases
from paddock.gateway import machine_link
from tests.gateway import door, real_box, stream_socket, toolbox

Phase = phases.Phase
STDERR = stream_socket.STDERR
LINES = b"".join(b"%07d\n" % number for number in range(300_000))
"""2.4 MB in which every part is another."""


@pytest.fixture
async def box(gateway: door.Door) -> AsyncIterator[toolbox.Toolbox]:
    machine = await gateway.machine_in(Phase.ACTIVE)
    async with toolbox.running(gateway, machine) as running:
        yield running


async def started(
    gateway: door.Door, box: toolbox.Toolbox, exec_id: str = "mine", **more: Any
) -> toolbox.Command:
    given = {"command": ["sleep", "1"], "background": True, **more}
    await gateway.call("machine.execStart", machineId=box.machine, id=exec_id, **given)
    return box.commands[exec_id]


async def until(is_so: Any) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await lifecycle.pause(0.005, asyncio.Event())


async def test_a_start_is_passed_on_with_everything_it_says(gateway: door.Door, box: toolbox.Toolbox) -> None:
    answer = await gateway.call(
        "machine.execStart",
        machineId=box.machine,
        id="mine",
        command=["vi", "a"],
        cwd="~/src",
        env={"A": "1"},
        user="dev",
        stdin=True,
        pty=True,
        columns=120,
        rows=50,
        timeoutS=9.5,
        background=True,
        outputLimitBytes=1 << 20,
    )

    [(_, asked, _)] = box.asked
    assert asked == executions.StartParams(
        id="mine", command=["vi", "a"], cwd="~/src", env={"A": "1"}, user="dev", stdin=True, pty=True, columns=120,
        rows=50, timeout_s=9.5, background=True, output_limit_bytes=1 << 20,
    )  # fmt: skip
    assert (answer["id"], answer["state"], answer["beganAt"], answer["endedAt"]) == (
        "mine", "running", "2023-11-14T22:13:20.000Z", None,
    )  # fmt: skip


async def test_an_id_is_made_where_none_is_given(gateway: door.Door, box: toolbox.Toolbox) -> None:
    answers = [
        await gateway.call("machine.execStart", machineId=box.machine, command=["true"], background=True)
        for _ in range(3)
    ]

    assert sorted(one["id"] for one in answers) == sorted(box.commands)
    assert len(box.commands) == 3
    assert all(ids.call_id(one) for one in box.commands)


async def test_without_background_a_start_waits_for_the_end(gateway: door.Door, box: toolbox.Toolbox) -> None:
    async with asyncio.TaskGroup() as tasks:
        waits = tasks.create_task(
            gateway.call("machine.execStart", machineId=box.machine, id="a", command=["make"])
        )
        await until(lambda: "a" in box.commands)
        assert not waits.done()
        await box.commands["a"].ends(3)

    assert (waits.result()["state"], waits.result()["exitCode"]) == ("ended", 3)


async def test_an_answer_that_is_lost_on_the_bus_starts_nothing_twice(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    box.answers_lost[executions.START.name] = 2

    answer = await gateway.call("machine.execStart", machineId=box.machine, command=["true"], background=True)

    assert box.names() == ["exec.start"] * 3
    assert list(box.commands) == [answer["id"]]


async def test_a_start_that_is_refused_says_under_which_id(gateway: door.Door, box: toolbox.Toolbox) -> None:
    box.refuses[executions.START.name].append(errors.CommandNotFound("cannot run nope: no such command"))

    refused = await gateway.refused("machine.execStart", machineId=box.machine, command=["nope"])

    assert (refused["code"], refused["message"]) == (5001, "cannot run nope: no such command")
    assert refused["data"]["id"] == box.asked[0][1].id


async def test_another_request_under_an_id_is_a_conflict(gateway: door.Door, box: toolbox.Toolbox) -> None:
    await started(gateway, box)

    refused = await gateway.refused("machine.execStart", machineId=box.machine, id="mine", command=["other"])

    assert refused["data"]["kind"] == "conflict"


async def test_stdin_is_bytes_whichever_way_they_are_written(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    command = await started(gateway, box, stdin=True)
    raw = bytes(range(256))

    async def write(**more: Any) -> int:
        answer = await gateway.call("machine.execWrite", machineId=box.machine, id="mine", **more)
        return int(answer["accepted"])

    accepted = [
        await write(content="héllo\n"),
        await write(content=base64.b64encode(raw).decode(), encoding="base64", offset=7),
        await write(content=base64.b64encode(raw).decode(), encoding="base64", offset=7),
        await write(eof=True),
    ]

    assert command.stdin == "héllo\n".encode() + raw
    assert accepted == [7, 263, 263, 263]
    assert command.is_eof


async def test_a_write_whose_answer_was_lost_is_taken_once(gateway: door.Door, box: toolbox.Toolbox) -> None:
    command = await started(gateway, box, stdin=True)
    box.answers_lost[executions.WRITE.name] = 1

    answer = await gateway.call(
        "machine.execWrite", machineId=box.machine, id="mine", content="abc", offset=0
    )

    assert (bytes(command.stdin), answer["accepted"]) == (b"abc", 3)
    assert box.names().count("exec.write") == 2


BAD_WRITES: list[tuple[dict[str, Any], str]] = [
    ({"content": "no base64", "encoding": "base64"}, "invalid_params"),
    ({"content": "é" * 200_000}, "payload_too_large"),
    ({"content": "A" * 349_528, "encoding": "base64"}, "payload_too_large"),
    ({"content": "", "offset": -1}, "invalid_params"),
]


@pytest.mark.parametrize(("given", "kind"), BAD_WRITES)
async def test_what_cannot_be_written_to_stdin_is_not_sent(
    gateway: door.Door, box: toolbox.Toolbox, given: dict[str, Any], kind: str
) -> None:
    await started(gateway, box, stdin=True)

    refused = await gateway.refused("machine.execWrite", machineId=box.machine, id="mine", **given)

    assert refused["data"]["kind"] == kind
    assert "exec.write" not in box.names()


async def test_sizes_and_signals_reach_the_machine(gateway: door.Door, box: toolbox.Toolbox) -> None:
    command = await started(gateway, box, pty=True)

    await gateway.call("machine.execResize", machineId=box.machine, id="mine", columns=100, rows=30)
    await gateway.call("machine.execSignal", machineId=box.machine, id="mine", signal="INT")

    assert (command.sizes, command.signals) == ([(100, 30)], ["INT"])


async def test_a_wait_is_answered_at_the_end_or_after_its_time(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    command = await started(gateway, box)

    at_once = await gateway.call("machine.execWait", machineId=box.machine, id="mine")
    later = await gateway.call("machine.execWait", machineId=box.machine, id="mine", waitS=0.1)
    async with asyncio.TaskGroup() as tasks:
        waits = tasks.create_task(
            gateway.call("machine.execWait", machineId=box.machine, id="mine", waitS=60)
        )
        await until(lambda: box.names().count("exec.wait") == 3)
        await command.ends(0)

    assert [at_once["state"], later["state"], waits.result()["state"]] == ["running", "running", "ended"]
    assert waits.result()["endedAt"] == "2023-11-14T22:13:21.000Z"


async def test_a_wait_outlives_its_machines_daemon(gateway: door.Door, box: toolbox.Toolbox) -> None:
    command = await started(gateway, box)
    async with asyncio.TaskGroup() as tasks:
        waits = tasks.create_task(
            gateway.call("machine.execWait", machineId=box.machine, id="mine", waitS=60)
        )
        await until(lambda: "exec.wait" in box.names())
        await box.down()
        await command.ends(5)
        await box.up()

    assert waits.result()["exitCode"] == 5


async def test_waits_are_answered_when_the_gateway_stops(gateway: door.Door, box: toolbox.Toolbox) -> None:
    await started(gateway, box)
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        waits = tasks.create_task(
            gateway.call("machine.execWait", machineId=box.machine, id="mine", waitS=60)
        )
        starts = tasks.create_task(gateway.call("machine.execStart", machineId=box.machine, command=["make"]))
        await until(lambda: "exec.wait" in box.names() and len(box.commands) == 2)
        gateway.stop.set()

    assert waits.result()["state"] == starts.result()["state"] == "running"
    assert starts.result()["id"] in box.commands
    assert len(box.commands) == 2
    assert time.monotonic() - began < 3


async def test_what_is_there_can_be_listed_and_read(gateway: door.Door, box: toolbox.Toolbox) -> None:
    for name in ("a", "b"):
        await (await started(gateway, box, name)).writes(b"hello " + name.encode())

    listed = await gateway.call("machine.execList", machineId=box.machine, limit=1)
    part = await gateway.call("machine.execOutput", machineId=box.machine, id="b", offset=6, length=10)
    summary = await gateway.call("machine.execSummary", machineId=box.machine, id="a", limitBytes=5)

    assert ([one["id"] for one in listed["executions"]], listed["isLast"]) == (["a"], False)
    assert (part["content"], part["sizeBytes"], part["isEnded"]) == ("b", 7, False)
    assert (summary["stdout"], summary["execution"]["id"]) == ("hello", "a")


async def test_output_is_followed_live_and_both_streams_stay_apart(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    command = await started(gateway, box)
    await command.writes(b"before ", b"oh ")
    async with stream_socket.opened(gateway) as socket:
        opened = await socket.call("machine.execAttach", machineId=box.machine, id="mine")
        stream = opened["stream"]
        await socket.until(lambda: socket.size(stream) == 7 and socket.size(stream, STDERR) == 3)
        await command.writes(b"after", b"no")
        await command.ends(2)
        end = await socket.end(stream)

    assert (opened["stdoutOffset"], opened["stderrOffset"], opened["execution"]["state"]) == (0, 0, "running")
    assert (socket.content(stream), socket.content(stream, STDERR)) == (b"before after", b"oh no")
    assert (end["state"], end["exitCode"], end["stdoutBytes"]) == ("ended", 2, 12)


async def test_following_goes_on_at_any_offset(gateway: door.Door, box: toolbox.Toolbox) -> None:
    command = await started(gateway, box)
    await command.writes(LINES, b"0123456789")
    await command.ends()
    async with stream_socket.opened(gateway) as socket:
        opened = await socket.call(
            "machine.execAttach", machineId=box.machine, id="mine", stdoutOffset=1_000_001, stderrOffset=4
        )
        await socket.end(opened["stream"])

    assert socket.content(opened["stream"]) == LINES[1_000_001:]
    assert socket.content(opened["stream"], STDERR) == b"456789"


async def test_several_follow_one_command_on_one_connection(gateway: door.Door, box: toolbox.Toolbox) -> None:
    command = await started(gateway, box)
    async with stream_socket.opened(gateway) as socket:
        opened = [
            (await socket.call("machine.execAttach", machineId=box.machine, id="mine"))["stream"]
            for _ in range(4)
        ]
        await command.writes(LINES)
        await command.ends()
        for stream in opened:
            await socket.end(stream)

    assert len(set(opened)) == 4
    assert all(socket.content(stream) == LINES for stream in opened)


async def test_output_is_byte_identical_when_the_machines_connection_is_cut(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    command = await started(gateway, box)
    await command.writes(LINES[:1_000_000], LINES[:50_000])
    async with stream_socket.opened(gateway) as socket:
        stream = (await socket.call("machine.execAttach", machineId=box.machine, id="mine"))["stream"]
        for cut_at in (300_000, 700_000):
            await socket.until(lambda: socket.size(stream) >= cut_at)  # noqa: B023
            box.cut()
        await command.writes(LINES[1_000_000:])
        await command.ends(1)
        end = await socket.end(stream)

    assert socket.content(stream) == LINES
    assert socket.content(stream, STDERR) == LINES[:50_000]
    assert end["exitCode"] == 1
    assert box.opened >= 2


async def test_output_is_byte_identical_when_the_daemon_is_restarted(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    command = await started(gateway, box)
    await command.writes(LINES[:800_000])
    async with stream_socket.opened(gateway) as socket:
        stream = (await socket.call("machine.execAttach", machineId=box.machine, id="mine"))["stream"]
        await socket.until(lambda: socket.size(stream) >= 400_000)
        await box.down()
        await command.writes(LINES[800_000:])
        await command.ends(0)
        await box.up()
        end = await socket.end(stream)

    assert socket.content(stream) == LINES
    assert end["state"] == "ended"


async def test_output_is_byte_identical_when_the_bus_is_restarted(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    command = await started(gateway, box)
    await command.writes(LINES[:800_000])
    async with stream_socket.opened(gateway) as socket:
        stream = (await socket.call("machine.execAttach", machineId=box.machine, id="mine"))["stream"]
        await socket.until(lambda: socket.size(stream) >= 400_000)
        gateway.ground.nats.restart()
        await command.writes(LINES[800_000:])
        await command.ends(0)
        await socket.end(stream)

    assert socket.content(stream) == LINES


async def test_a_machine_that_stays_away_ends_what_is_followed_with_the_reason(
    gateway: door.Door, box: toolbox.Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_link, "AWAY_S", 0.5)
    await gateway.context.presence.beat({ids.SandboxId(f"{box.machine}-1"): 1_700_000_000_000})
    await started(gateway, box)
    async with stream_socket.opened(gateway) as socket:
        stream = (await socket.call("machine.execAttach", machineId=box.machine, id="mine"))["stream"]
        await box.down()
        fault = await socket.fault(stream)
        pong = await socket.call("system.ping")

    assert (fault["data"]["kind"], fault["data"]["retryable"]) == ("machine_offline", True)
    assert fault["data"]["lastSeenAt"] == "2023-11-14T22:13:20.000Z"
    assert pong == {"pong": True}


async def test_output_that_is_no_longer_kept_is_a_typed_end(gateway: door.Door, box: toolbox.Toolbox) -> None:
    await started(gateway, box)
    kept = {"firstOffset": 100, "sizeBytes": 200}
    box.refuses[executions.ATTACH.name].append(errors.OutputLimit(data=kept))
    async with stream_socket.opened(gateway) as socket:
        refused = await socket.refused("machine.execAttach", machineId=box.machine, id="mine", stdoutOffset=3)

    assert (refused["code"], refused["data"]["firstOffset"], refused["data"]["kind"]) == (
        5013,
        100,
        "output_limit",
    )


async def test_what_is_unknown_is_not_found_and_plain_http_carries_no_stream(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        missing = await socket.refused("machine.execAttach", machineId=box.machine, id="nope")
    plain = await gateway.refused("machine.execAttach", machineId=box.machine, id="nope")

    assert (missing["data"]["kind"], plain["code"]) == ("not_found", -32600)


OFFLINE: list[tuple[str, dict[str, Any]]] = [
    ("machine.execStart", {"id": "a", "command": ["true"]}),
    ("machine.execStart", {"command": ["true"], "background": True}),
    ("machine.execAttach", {"id": "a"}),
    ("machine.execWrite", {"id": "a", "content": "x"}),
    ("machine.execWrite", {"id": "a", "content": "x", "offset": 0}),
    ("machine.execResize", {"id": "a", "columns": 1, "rows": 1}),
    ("machine.execSignal", {"id": "a", "signal": "TERM"}),
    ("machine.execWait", {"id": "a", "waitS": 30}),
    ("machine.execList", {}),
    ("machine.execOutput", {"id": "a"}),
    ("machine.execSummary", {"id": "a"}),
    ("machine.fileRead", {"path": "/a"}),
    ("machine.fileWrite", {"path": "/a", "upload": "u"}),
    ("machine.fileCommit", {"path": "/a", "upload": "u", "size": 0, "sha256": "0" * 64}),
    ("machine.fileAbort", {"upload": "u"}),
    ("machine.fileStat", {"path": "/a"}),
    ("machine.fileList", {"path": "/a"}),
    ("machine.fileMkdir", {"path": "/a"}),
    ("machine.fileMove", {"path": "/a", "to": "/b"}),
    ("machine.fileRemove", {"path": "/a"}),
    ("machine.fileChmod", {"path": "/a", "mode": 0o600}),
    ("machine.fileFind", {"path": "/a"}),
    ("machine.portOpen", {"port": 80}),
]


async def test_an_offline_machine_is_said_to_be_at_once_with_when_it_was_seen(gateway: door.Door) -> None:
    machine = await gateway.machine_in(Phase.ACTIVE)
    await gateway.context.presence.beat({ids.SandboxId(f"{machine}-1"): 1_700_000_000_000})
    async with stream_socket.opened(gateway) as socket:
        for method, params in OFFLINE:
            began = time.monotonic()
            refused = await socket.refused(method, machineId=machine, **params)

            assert time.monotonic() - began < 1, method
            assert refused["data"]["kind"] == "machine_offline", method
            assert refused["data"]["lastSeenAt"] == "2023-11-14T22:13:20.000Z", method


async def test_a_machine_in_another_phase_is_not_asked(gateway: door.Door) -> None:
    machine = await gateway.machine_in(Phase.DELETING)
    async with stream_socket.opened(gateway) as socket:
        kinds = {
            (await socket.refused(method, machineId=machine, **params))["data"]["kind"]
            for method, params in OFFLINE
        }

    assert kinds == {"machine_gone"}


async def test_values_of_variables_and_stdin_are_in_no_log(
    gateway: door.Door, box: toolbox.Toolbox, capfd: pytest.CaptureFixture[str]
) -> None:
    await started(gateway, box, stdin=True, env={"TOKEN": "s3cr3t-env"})
    await gateway.call("machine.execWrite", machineId=box.machine, id="mine", content="s3cr3t-stdin")
    box.refuses[executions.START.name].append(errors.PermissionDenied())
    with contextlib.suppress(AssertionError):
        await gateway.call("machine.execStart", machineId=box.machine, command=["x"], env={"T": "s3cr3t-env"})

    said = "".join(capfd.readouterr())
    assert "s3cr3t" not in said


COUNTS = """
i=0
while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done
read answer
echo "heard $answer" >&2
exit 7
"""


async def test_a_real_command_is_followed_through_the_death_of_its_machines_daemon(
    gateway: door.Door, tmp_path: pathlib.Path
) -> None:
    async with real_box.running(gateway, tmp_path) as box, stream_socket.opened(gateway) as socket:
        named = {"machineId": box.machine, "id": "mine"}
        asked = {"command": ["sh", "-c", COUNTS], "stdin": True, "background": True}
        began = await socket.call("machine.execStart", **named, **asked)
        stream = (await socket.call("machine.execAttach", **named))["stream"]
        await socket.until(lambda: socket.size(stream) > 1000)
        await box.kill_daemon()
        again = await socket.call("machine.execStart", **named, **asked)
        written = await socket.call("machine.execWrite", **named, content="me\n", offset=0, eof=True)
        end = await socket.end(stream)
        waited = await socket.call("machine.execWait", **named, waitS=5)
        listed = await socket.call("machine.execList", machineId=box.machine)
        late = (await socket.call("machine.execAttach", **named, stdoutOffset=5))["stream"]
        await socket.end(late)

    expected = b"".join(b"line %d\n" % number for number in range(20_000))
    assert (again["pid"], again["beganAt"], written["accepted"]) == (began["pid"], began["beganAt"], 3)
    assert socket.content(stream) == expected
    assert socket.content(stream, STDERR) == b"heard me\n"
    assert socket.content(late) == expected[5:]
    assert (end["exitCode"], waited["exitCode"]) == (7, 7)
    assert [one["id"] for one in listed["executions"]] == ["mine"]
