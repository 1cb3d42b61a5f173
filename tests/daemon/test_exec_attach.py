"""Following a command's output: live, from any offset, by anybody, and exactly to its end."""

import asyncio
import hashlib
import os
import pathlib

import pytest

from paddock.contracts import errors, executions
from tests.daemon import commands as of_commands
from tests.support import processes

MIB = 1024 * 1024
COUNT = "i=0; while [ $i -lt {0} ]; do echo $i; echo $i >&2; i=$((i+1)); done"


def numbers(count: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(count))


def open_fds(commands: of_commands.Commands) -> int:
    return len(list(pathlib.Path(f"/proc/{commands.machine.state()['pid']}/fd").iterdir()))


async def test_output_comes_as_it_is_written(commands: of_commands.Commands) -> None:
    await commands.start("c1", "cat", stdin=True)
    async with commands.attached("c1") as channel:
        seen = of_commands.Seen(channel.opened)
        for line in (b"one\n", b"two\n", b"three\n"):
            await commands.write("c1", line)
            seen.take(await channel.receive())
            assert seen.stdout.endswith(line)
        await commands.write("c1", b"", eof=True)
        end = await channel.finish()

    assert (end.state, end.exit_code, end.stdout_bytes) == ("ended", 0, 14)
    assert channel.opened.execution.state == "running"


async def test_it_goes_on_at_any_offset_of_either_stream(commands: of_commands.Commands) -> None:
    await commands.sh("c1", COUNT.format(300), background=False)
    whole = numbers(300)
    for out, err in ((0, 0), (1, 500), (len(whole), 0), (len(whole), len(whole))):
        seen = await commands.follow("c1", out, err)
        assert (bytes(seen.stdout), bytes(seen.stderr)) == (whole[out:], whole[err:])
    with pytest.raises(errors.BadOffset) as raised:
        await commands.follow("c1", len(whole) + 1)

    assert raised.value.data == {"sizeBytes": len(whole)}


async def test_all_viewers_see_the_same(commands: of_commands.Commands) -> None:
    await commands.sh("c1", "read x; " + COUNT.format(20_000), stdin=True)
    async with asyncio.TaskGroup() as tasks:
        viewers = [tasks.create_task(commands.follow("c1")) for _ in range(5)]
        await commands.write("c1", b"go\n")
    late = await commands.follow("c1")

    for seen in (*(viewer.result() for viewer in viewers), late):
        assert seen.stdout == seen.stderr == numbers(20_000)
        assert seen.end == late.end


async def test_a_slow_viewer_slows_nobody(commands: of_commands.Commands) -> None:
    size = 8 * MIB
    await commands.sh("c1", f"head -c {size} /dev/zero", stdin=True)
    async with commands.attached("c1") as slow:
        seen = of_commands.Seen(slow.opened)
        seen.take(await slow.receive())
        quick = await commands.follow("c1")
        ended = await commands.now("c1")
        async for frame in slow:
            seen.take(frame)

    assert ended.state == "ended"
    assert len(quick.stdout) == len(seen.stdout) == size
    assert slow.end == quick.end


async def test_a_viewer_too_slow_for_the_limit_is_told_where_to_go_on(commands: of_commands.Commands) -> None:
    limit = executions.SPOOL_LIMIT_MIN_BYTES
    script = "echo first; read x; head -c 4000000 /dev/zero"
    await commands.sh("c1", script, stdin=True, output_limit_bytes=limit)
    async with commands.attached("c1") as channel:
        await channel.receive()
        await commands.write("c1", b"go\n")
        ended = await commands.ended("c1")
        with pytest.raises(errors.OutputLimit) as raised:
            async for _ in channel:
                pass

    with pytest.raises(errors.OutputLimit) as again:
        await commands.follow("c1", 0)
    first = again.value.data["firstOffset"]

    assert 0 < raised.value.data["firstOffset"] <= first == ended.stdout_from
    assert len((await commands.follow("c1", first)).stdout) == ended.stdout_bytes - first


async def test_following_ends_with_the_command_though_a_grandchild_holds_its_pipe(
    commands: of_commands.Commands,
) -> None:
    left = "(read x < gate; echo late; echo late >&2; touch wrote; exec sleep 60) &"
    os.mkfifo(commands.machine.home / "gate")
    await commands.sh("c1", f"echo one; {left} echo two; exit 7")
    live = await commands.follow("c1")
    await asyncio.to_thread((commands.machine.home / "gate").write_text, "\n")
    await processes.until((commands.machine.home / "wrote").exists)
    later = await commands.follow("c1")
    part = await commands.ask(executions.OUTPUT, executions.OutputParams(id="c1"))

    assert live.stdout == later.stdout == b"one\ntwo\n"
    assert live.stderr == later.stderr == b""
    assert live.end == later.end
    assert later.end is not None
    assert (later.end.exit_code, later.end.stdout_bytes) == (7, 8)
    assert (part.content, part.size_bytes) == ("one\ntwo\n", 8)


async def test_a_hundred_megabytes_that_nobody_listened_to_are_read_whole_later(
    commands: of_commands.Commands,
) -> None:
    script = "seq 1 99999999 | head -c 100000000"
    await commands.sh("c1", script)
    expected = await asyncio.create_subprocess_shell(f"{script} | sha256sum", stdout=asyncio.subprocess.PIPE)
    digest = (await expected.communicate())[0].split()[0].decode()
    ended = await commands.ended("c1")
    hashed, size = hashlib.sha256(), 0
    async with commands.attached("c1") as channel:
        async for frame in channel:
            assert frame.offset == size
            hashed.update(frame.data)
            size += len(frame.data)

    assert ended.stdout_bytes == size == 100_000_000
    assert hashed.hexdigest() == digest


async def test_late_viewers_of_a_terminal_see_its_last_mebibyte(commands: of_commands.Commands) -> None:
    ended = await commands.sh("c1", "seq 1 300000 | head -c 1900000", pty=True, background=False)
    late, whole = await commands.follow("c1"), await commands.follow("c1", 0)

    assert len(late.stdout) == executions.REPLAY_BYTES
    assert whole.stdout.endswith(late.stdout)
    assert len(whole.stdout) == ended.stdout_bytes > 1_900_000
    assert whole.stdout.startswith(b"1\r\n2\r\n3\r\n")


async def test_several_viewers_share_a_terminal(commands: of_commands.Commands) -> None:
    await commands.start("c1", "cat", pty=True)
    async with commands.attached("c1") as one, commands.attached("c1") as other:
        await commands.write("c1", b"typed\n")
        seen = [of_commands.Seen(one.opened), of_commands.Seen(other.opened)]
        for viewer, channel in zip(seen, (one, other), strict=True):
            while len(viewer.stdout) < len(b"typed\r\n" * 2):
                viewer.take(await channel.receive())
        await commands.write("c1", b"", eof=True)
        ends = [await one.finish(), await other.finish()]

    assert seen[0].stdout == seen[1].stdout == b"typed\r\ntyped\r\n"
    assert ends[0] == ends[1]
    assert ends[0].exit_code == 0


async def test_what_never_ran_has_an_end_and_no_output(commands: of_commands.Commands) -> None:
    with pytest.raises(errors.CommandNotFound):
        await commands.start("c1", "no-such-command")
    seen = await commands.follow("c1")

    assert not seen.stdout
    assert not seen.stderr
    assert seen.end is not None
    assert seen.end.state == "failed"


async def test_viewers_that_leave_end_nothing_and_leave_nothing(commands: of_commands.Commands) -> None:
    await commands.sh("c1", f"head -c {20 * MIB} /dev/zero; read x", stdin=True)
    await commands.follow_to("c1", 20 * MIB)
    before = open_fds(commands)
    for number in range(30):
        async with commands.attached("c1", number) as channel:
            await channel.receive()
    await processes.until(lambda: open_fds(commands) <= before)
    running = await commands.now("c1")
    await commands.write("c1", b"\n")
    ended = await commands.ended("c1")

    assert running.state == "running"
    assert ended.exit_code == 0


async def test_a_flood_on_one_channel_does_not_hold_up_other_calls(commands: of_commands.Commands) -> None:
    await commands.sh("c1", f"head -c {64 * MIB} /dev/zero")
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(commands.follow("c1"))
        answered = 0
        while not following.done():
            await commands.now("c1")
            answered += 1

    assert len(following.result().stdout) == 64 * MIB
    assert answered > 10
