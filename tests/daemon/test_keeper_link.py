"""A daemon's link to the keeper: started when needed, and never waited for in vain."""

import asyncio
import contextlib
import os
import pathlib
import signal
import socket
import stat
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from paddock.contracts import errors
from paddock.daemon import keeper_protocol
from tests.daemon import keeping
from tests.support import processes

Header = keeper_protocol.Header


class Keepers:
    """Daemons of one folder, whose keepers are our children."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.daemons: list[keeping.Daemon] = []
        self.pids: set[int] = set()

    def daemon(self, **more: str) -> keeping.Daemon:
        made = keeping.Daemon(self.folder, {"PATH": "/usr/bin:/bin", **more})
        self.daemons.append(made)
        return made

    async def pid(self, daemon: keeping.Daemon) -> int:
        pid = int((await daemon.ask("ping"))["pid"])
        self.pids.add(pid)
        return pid

    async def end(self) -> None:
        for daemon in self.daemons:
            await daemon.link.close()
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(ChildProcessError):
                await asyncio.to_thread(os.waitpid, pid, 0)


@pytest.fixture
async def keepers(tmp_path: pathlib.Path) -> AsyncIterator[Keepers]:
    made = Keepers(tmp_path / "home")
    made.folder.mkdir()
    yield made
    await made.end()


@pytest.fixture
def deaf(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder whose keeper accepts and never answers."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / keeper_protocol.SOCKET_NAME))
        listening.listen()
        yield tmp_path


async def test_without_a_keeper_there_is_nobody_to_ask(keepers: Keepers) -> None:
    daemon = keepers.daemon()

    assert not await daemon.link.connect()
    with pytest.raises(errors.KeeperLost):
        await daemon.ask("ping")


async def test_many_who_need_one_start_one(keepers: Keepers) -> None:
    daemons = [keepers.daemon() for _ in range(3)]
    async with asyncio.TaskGroup() as tasks:
        for daemon in daemons * 5:
            tasks.create_task(daemon.link.start_if_needed())
    pids = {await keepers.pid(daemon) for daemon in daemons}
    # Those that came too late have ended by themselves, and are reaped.
    await processes.until(lambda: sum(len(daemon.link._children) for daemon in daemons) == 1)

    assert len(pids) == 1


async def test_a_keeper_is_started_alone_and_its_socket_is_private(keepers: Keepers) -> None:
    daemon = keepers.daemon(PADDOCK_BOOTED_FD="7", PADDOCK_LAST_EXIT="x", LANG="C")
    await daemon.link.start_if_needed()
    pid = await keepers.pid(daemon)
    process = pathlib.Path(f"/proc/{pid}")
    environ = (process / "environ").read_text()
    mode = (keepers.folder / keeper_protocol.SOCKET_NAME).stat().st_mode

    assert os.getsid(pid) == os.getpgid(pid) == pid
    assert f"PADDOCK_HOME={keepers.folder}" in environ
    assert "PADDOCK_BOOTED_FD" not in environ
    assert stat.S_IMODE(mode) == 0o600
    assert [str((process / f"fd/{fd}").readlink()) for fd in (0, 1)] == ["/dev/null"] * 2


async def test_a_path_longer_than_a_socket_may_have_is_no_hindrance(tmp_path: pathlib.Path) -> None:
    keepers = Keepers(tmp_path.joinpath("long" * 20, "long" * 20))
    keepers.folder.mkdir(parents=True)
    daemon = keepers.daemon()
    await daemon.link.start_if_needed()
    await daemon.start("x1", "echo", "far away")
    await daemon.end("x1")
    await keepers.pid(daemon)
    await keepers.end()

    assert daemon.written("x1") == b"far away\n"


async def test_a_killed_keeper_fails_those_who_wait_and_is_told_once(keepers: Keepers) -> None:
    daemon = keepers.daemon()
    await daemon.link.start_if_needed()
    pid = await keepers.pid(daemon)
    started = await daemon.shell("x1", "trap '' PIPE; sleep 60", stdin=True)
    waiting = asyncio.create_task(daemon.write("x1", b"x" * 1_000_000))
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(errors.KeeperLost):
        await waiting
    await asyncio.wait_for(daemon.lost.wait(), keeping.WAIT_S)
    connected = daemon.link.is_connected
    runs_on = processes.is_running(started["pid"])
    await daemon.link.start_if_needed()
    again = await keepers.pid(daemon)
    listed = await daemon.ask("list")
    os.killpg(started["pid"], signal.SIGKILL)

    assert (connected, runs_on) == (False, True)
    assert again != pid
    assert listed["executions"] == {}
    assert daemon.record("x1").pid == started["pid"]


async def test_closing_leaves_the_keeper_and_its_commands(keepers: Keepers) -> None:
    first, second = keepers.daemon(), keepers.daemon()
    await first.link.start_if_needed()
    pid = await keepers.pid(first)
    await first.shell("x1", "read x; exit 5", stdin=True)
    await first.link.close()
    was_told = first.lost.is_set()
    await second.link.start_if_needed()
    await second.write("x1", b"\n")
    end = await second.end("x1")

    assert await keepers.pid(second) == pid
    assert (end["exitCode"], was_told) == (5, False)


async def test_a_keeper_that_cannot_be_one_is_no_wait(keepers: Keepers) -> None:
    (keepers.folder / keeper_protocol.LOCK_NAME).mkdir()
    daemon = keepers.daemon()
    began = time.monotonic()
    with pytest.raises(errors.KeeperLost):
        await daemon.link.start_if_needed()

    assert time.monotonic() - began < 5


async def test_a_keeper_that_is_silent_is_lost_after_the_deadline(deaf: pathlib.Path) -> None:
    daemon = keeping.Daemon(deaf, {})
    await daemon.link.connect()
    with pytest.raises(errors.KeeperLost, match=r"no answer in 0\.1 s"):
        await daemon.link.ask({"do": "ping"}, timeout_s=0.1)
    await daemon.link.close()

    assert not daemon.link._answers


async def test_of_what_grew_several_times_at_once_only_the_newest_is_told() -> None:
    daemon = keeping.Daemon(pathlib.Path("/nowhere"), {})
    told: list[Header] = [
        {"is": "grew", "id": "x1", "stdout": 1, "stderr": 0},
        {"is": "grew", "id": "x2", "stdout": 7, "stderr": 0},
        {"is": "grew", "id": "x1", "stdout": 2, "stderr": 0},
        {"is": "ended", "id": "x1"},
        {"is": "grew", "id": "x2", "stdout": 8, "stderr": 0},
    ]
    daemon.link._hear(told)

    assert [(header["id"], header["stdout"]) for header in daemon.grew] == [("x1", 2), ("x2", 7), ("x2", 8)]
    assert daemon.has_ended("x1")


def test_messages_are_whole_however_they_are_cut() -> None:
    messages: list[tuple[Header, bytes]] = [
        ({"n": 1, "a": "ä\udcff"}, b""),
        ({"n": 2}, b"\0blob\xff"),
        ({}, b"x"),
    ]
    stream = b"".join(keeper_protocol.encode(header, blob) for header, blob in messages)
    heard = []
    for size in (1, 3, 7, len(stream)):
        decoder = keeper_protocol.Decoder()
        parts = [stream[at : at + size] for at in range(0, len(stream), size)]
        heard.append([message for part in parts for message in decoder.feed(part)])

    assert heard == [messages] * 4
