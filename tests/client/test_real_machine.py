"""Commands and files of the client against a real daemon, over a real gateway and a network that breaks."""

import asyncio
import contextlib
import hashlib
import pathlib
import random
from collections.abc import AsyncIterator

import pytest

from paddock.client import process
from paddock.contracts import errors
from tests.client import real_machine

MEGABYTE = 1_000_000


@pytest.fixture
async def real(tmp_path: pathlib.Path) -> AsyncIterator[real_machine.RealMachine]:
    async with real_machine.opened(tmp_path) as running:
        yield running


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


async def merged(running: process.Process) -> dict[str, bytes]:
    """All that a command writes, each stream in order."""
    got = {"stdout": bytearray(), "stderr": bytearray()}
    async with asyncio.timeout(30), running.output() as feed:
        async for piece in feed:
            assert piece.offset == len(got[piece.stream])
            got[piece.stream] += piece.data
    return {name: bytes(data) for name, data in got.items()}


async def test_bytes_come_back_and_refusals_are_typed(
    real: real_machine.RealMachine, tmp_path: pathlib.Path
) -> None:
    files = real.machine.files
    content = noise(300_001)

    info = await files.write("~/a", content, mode=0o600, expected_sha256="absent")
    made = await files.mkdir("~/d/e", parents=True)
    await files.move("~/a", "~/d/e/b")
    with pytest.raises(errors.Conflict):
        await files.write("~/d/e/b", b"", expected_sha256="absent")
    with pytest.raises(errors.NoSuchPath):
        await files.read("~/a")
    with pytest.raises(errors.IsADirectory):
        await files.download("~/d", tmp_path / "x")
    with pytest.raises(errors.NotEmpty):
        await files.remove("~/d/e")

    assert (info.size, info.mode, made.kind) == (len(content), 0o600, "directory")
    assert await files.read("~/d/e/b") == content
    assert [one.name for one in await files.list("~/d")] == ["e"]
    assert [one.name for one in (await files.find("~", pattern="b")).entries] == ["b"]
    assert (await files.stat("~/d/e/b", digest=True)).sha256 == info.sha256


async def test_copies_go_on_over_cut_links_and_a_killed_daemon(
    real: real_machine.RealMachine, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "x").write_bytes(content := noise(30 * MEGABYTE))
    real.proxy.cuts_up.extend([3 * MEGABYTE, 500_000, 5 * MEGABYTE])
    restarting: list[asyncio.Task[None]] = []

    def progress(done: int, total: int) -> None:
        if done > total // 2 and not restarting:
            restarting.append(asyncio.create_task(real.restart_daemon()))

    async with asyncio.timeout(60):
        await real.machine.files.upload(tmp_path / "x", "~/x", progress=progress)
        await restarting.pop()
        uploaded = (real.home / "x").read_bytes()
        real.proxy.cuts.extend([3 * MEGABYTE, 500_000, 5 * MEGABYTE])
        await real.machine.files.download("~/x", tmp_path / "y", progress=progress)
        await restarting.pop()

    assert uploaded == content
    assert (tmp_path / "y").read_bytes() == content
    assert real.proxy.cut_count == 6


async def test_output_is_whole_over_links_cut_at_any_byte(real: real_machine.RealMachine) -> None:
    chance = random.Random(5)
    (real.home / "out").write_bytes(out := chance.randbytes(6 * MEGABYTE))
    (real.home / "err").write_bytes(err := chance.randbytes(2 * MEGABYTE))
    real.proxy.cuts.extend(chance.randrange(1, MEGABYTE) for _ in range(8))

    running = await real.machine.exec.start(["sh", "-c", "cat out & cat err >&2; wait; exit 7"])
    got = await merged(running)

    assert got == {"stdout": out, "stderr": err}
    assert (await running.wait()).exit_code == 7
    assert await real.machine.exec.get(running.id).stdout.read() == out
    assert real.proxy.cut_count >= 4


async def test_a_command_and_its_reader_outlive_a_killed_daemon(real: real_machine.RealMachine) -> None:
    script = "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 0.05; done; exit 3"
    running = await real.machine.exec.start(["sh", "-c", script])
    async with asyncio.timeout(40), asyncio.TaskGroup() as group:
        first = await anext(running.stdout)
        reading = group.create_task(running.stdout.read())
        waiting = group.create_task(running.wait())
        await real.restart_daemon()

    assert first + reading.result() == b"".join(b"line %d\n" % number for number in range(40))
    assert waiting.result().exit_code == 3


async def test_stdin_of_any_length_arrives_at_the_command_s_pace(real: real_machine.RealMachine) -> None:
    content = noise(3 * MEGABYTE)
    running = await real.machine.exec.start(["sh", "-c", "sleep 0.3; sha256sum; echo done"], stdin=True)
    async with asyncio.timeout(30):
        await running.write(content)
        await running.close_stdin()
        said = await running.stdout.read()

    assert said.split() == [hashlib.sha256(content).hexdigest().encode(), b"-", b"done"]
    with pytest.raises((errors.NotRunning, errors.StdinClosed)):
        await running.write(b"more")


async def test_a_terminal_is_typed_into_resized_and_signalled(real: real_machine.RealMachine) -> None:
    running = await real.machine.exec.start(
        ["sh", "-c", "stty -echo; echo ready; read x; stty size; echo got $x; sleep 60"],
        pty=True,
        columns=90,
        rows=20,
    )
    seen = b""
    async with asyncio.timeout(20), contextlib.aclosing(running.stdout):
        while b"ready" not in seen:
            seen += await anext(running.stdout)
        await running.resize(120, 40)
        await running.write(b"hello\n")
        while b"got hello" not in seen:
            seen += await anext(running.stdout)
        await running.signal("TERM")
        ended = await running.wait()

    assert b"40 120" in seen
    assert ended.signal == "SIGTERM"


async def test_ends_are_told_as_they_were(real: real_machine.RealMachine) -> None:
    start = real.machine.exec.start
    with pytest.raises(errors.CommandNotFound):
        await start(["no-such-command"])
    with pytest.raises(errors.NoSuchPath):
        await start(["true"], cwd="/none")
    killed = await start(["sleep", "60"])
    timed_out = await start(["sleep", "60"], timeout_s=0.2)
    await killed.kill()
    with pytest.raises(errors.InvalidParams):
        await timed_out.signal("NOSUCH")
    with pytest.raises(errors.NotFound):
        await real.machine.exec.get("nobody").wait()

    assert (await killed.wait()).signal == "SIGKILL"
    assert (await timed_out.wait()).timed_out
    await killed.kill()
    with pytest.raises(errors.NotRunning):
        await killed.signal("TERM")
    listed = await real.machine.exec.list()
    assert {killed.id, timed_out.id} <= {one.id for one in listed}


async def test_an_id_runs_its_command_once(real: real_machine.RealMachine) -> None:
    command = ["sh", "-c", "echo ran >> ran"]
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        tasks = [group.create_task(real.machine.exec.start(command, id="one")) for _ in range(10)]
    await tasks[0].result().wait()

    assert (real.home / "ran").read_text() == "ran\n"
    with pytest.raises(errors.Conflict):
        await real.machine.exec.start(["true"], id="one")


async def test_parts_and_summaries_of_output_are_read(real: real_machine.RealMachine) -> None:
    running = await real.machine.exec.start(["seq", "200000"])
    ended = await running.wait()
    whole = "".join(f"{number}\n" for number in range(1, 200_001)).encode()

    assert ended.stdout_bytes == len(whole)
    assert await running.read_output("stdout") == whole
    assert await running.read_output("stdout", 100, 50) == whole[100:150]
    summary = await running.summary(limit_bytes=20)
    assert summary.stdout.startswith("1\n2\n3\n4\n5\n")
    assert summary.stdout_omitted_bytes == len(whole) - 20
