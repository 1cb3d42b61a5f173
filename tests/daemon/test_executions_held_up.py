"""The index of commands when its keeper is slow, or the daemon has nothing left to reach it with."""

import asyncio
import os
import pathlib
import resource
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from paddock.contracts import errors
from paddock.daemon import executions
from paddock.daemon import processes as known
from tests.daemon import commands as of_commands
from tests.daemon import keeping
from tests.daemon import machine as machines
from tests.daemon import test_executions as of_index
from tests.support import processes


@pytest.fixture
def filed(tmp_path: pathlib.Path) -> Iterator[of_index.Machine]:
    made = of_index.Machine(tmp_path)
    try:
        yield made
    finally:
        made.end_keeper()


async def test_starts_of_one_id_at_once_are_one_start_though_something_else_is_found_meanwhile(
    filed: of_index.Machine,
) -> None:
    other = of_index.sleeping()
    async with filed.index() as index:
        await index.start("c0", "d", lambda: of_index.order("true"))
        ask = index.keeper.ask

        async def slowly(header: Any, *rest: Any, **more: Any) -> Any:
            if header["do"] == "start":
                await asyncio.sleep(0.1)  # a keeper under load
            return await ask(header, *rest, **more)

        index.keeper.ask = slowly  # type: ignore[method-assign]
        filed.accept("other", of_index.started(other.pid, known.start_ticks(other.pid)))
        index.book.find("other")
        async with asyncio.TaskGroup() as tasks:
            starts = [
                tasks.create_task(index.start("c1", "d", lambda: of_index.order("true"))) for _ in range(4)
            ]
        pids = {start.result().pid for start in starts}
    other.kill()
    other.wait()

    assert len(pids) == 1
    assert pids != {0}


async def test_a_viewer_of_a_command_whose_keeper_was_held_up_sees_what_there_is(
    commands: of_commands.Commands,
) -> None:
    await commands.sh("c1", "echo one; read x; exit 3", stdin=True)
    await processes.until((commands.shelf / "c1" / "stdout.000000").exists)
    os.kill(commands.keeper_pid, signal.SIGSTOP)
    async with asyncio.TaskGroup() as tasks:
        viewer = tasks.create_task(commands.follow_to("c1", 4))
        await asyncio.sleep(2.25 * executions.PROMPT_S)  # its answers come later than anybody waits for them
        os.kill(commands.keeper_pid, signal.SIGCONT)
        async with asyncio.timeout(5):
            seen = await viewer
    await commands.write("c1", b"\n")

    assert seen.stdout == b"one\n"
    assert (await commands.ended("c1")).exit_code == 3


async def test_a_daemon_without_a_descriptor_does_not_take_its_keeper_for_gone(
    machine: machines.Machine,
) -> None:
    async with keeping.keeping(machine):
        another = keeping.Daemon(machine.folder, machine.environ)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        for spare in (0, 1):
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, limits[1]))
            try:
                with pytest.raises(errors.KeeperLost, match="too many open files"):
                    await another.link.connect()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)

        assert await another.link.connect()
        await another.link.close()
