"""A keeper that has too little of something, or was killed in between: it goes on, and so does what it keeps."""

import pathlib
import resource

import pytest

from paddock.daemon import keeper_protocol
from tests.daemon import keeping
from tests.daemon import machine as machines
from tests.support import processes

TERMINAL = {"columns": 80, "rows": 24}


def pid_of(machine: machines.Machine) -> int:
    return int((machine.folder / keeper_protocol.LOCK_NAME).read_text())


def open_fds(pid: int) -> int:
    return len([*pathlib.Path(f"/proc/{pid}/fd").iterdir()])


def limit(pid: int, what: int, soft: int | None = None) -> None:
    """Let the process have so much of something, or as much as it could before."""
    hard = resource.prlimit(pid, what)[1]
    resource.prlimit(pid, what, (hard if soft is None else soft, hard))


@pytest.mark.parametrize("pty", [None, TERMINAL])
async def test_whenever_descriptors_run_out_what_runs_goes_on_and_the_id_can_be_used_again(
    machine: machines.Machine, pty: object
) -> None:
    said = set()
    async with keeping.keeping(machine) as kept:
        await kept.shell("long", "read x; exit 4", stdin=True)
        pid = pid_of(machine)
        before = open_fds(pid)
        for spare in range(14):
            name = f"x{spare}"
            limit(pid, resource.RLIMIT_NOFILE, before + spare)
            refused = await kept.refused("start", name, **kept.order(("no-such-command",), pty=pty))
            limit(pid, resource.RLIMIT_NOFILE)
            said.add((refused["kind"], refused.get("what")))
            if refused["kind"] == "disk":
                assert not kept.path(name).exists()
                await kept.start(name, "true", pty=pty)
                await kept.end(name)
        await processes.until(lambda: open_fds(pid) == before)
        await kept.write("long", b"\n")
        end = await kept.end("long")

    assert end["exitCode"] == 4
    assert said == {("disk", None), ("failed", "spawn"), ("failed", "command")}


@pytest.mark.parametrize("left", [None, b"", b'{"is":"accepted","id":"x1","dig'])
async def test_an_id_whose_record_was_never_written_whole_is_free(
    machine: machines.Machine, left: bytes | None
) -> None:
    """As a keeper leaves it that is killed between the folder and the end of the first line."""
    folder = machine.folder / keeper_protocol.FOLDER_NAME / "x1"
    folder.mkdir(parents=True)
    if left is not None:
        (folder / "record.jsonl").write_bytes(left)
    async with keeping.keeping(machine) as kept:
        await kept.shell("x1", "exit 3")
        end = await kept.end("x1")
        again = await kept.refused("start", "x1", **kept.order(("true",)))

    assert end["exitCode"] == 3
    assert again["kind"] == "exists"
    assert kept.record("x1").exit_code == 3


async def test_a_folder_that_holds_more_than_a_torn_record_is_left_alone(machine: machines.Machine) -> None:
    folder = machine.folder / keeper_protocol.FOLDER_NAME / "x1"
    folder.mkdir(parents=True)
    (folder / "stdout.000000").write_bytes(b"somebody's")
    async with keeping.keeping(machine) as kept:
        refused = await kept.refused("start", "x1", **kept.order(("true",)))

    assert refused["kind"] == "disk"
    assert (folder / "stdout.000000").read_bytes() == b"somebody's"


async def test_what_the_disk_did_not_take_is_written_later_and_nowhere_else(
    machine: machines.Machine,
) -> None:
    async with keeping.keeping(machine) as kept:
        pid: int = (await kept.ask("ping"))["pid"]
        before = open_fds(pid)
        order = kept.order(("no-such-command",), env={})
        await kept.refused("start", "probe", **order)
        accepted = kept.path("probe").joinpath("record.jsonl").read_bytes().index(b"\n") + 1
        # From here on the disk takes a first line and nothing after it.
        limit(pid, resource.RLIMIT_FSIZE, accepted)
        refused = await kept.refused("start", "x1", **order)
        record = kept.record("x1")
        limit(pid, resource.RLIMIT_FSIZE)
        others = ("x2", "x3", "x4")
        for name in others:
            await kept.shell(name, "read x", stdin=True)
        await processes.until(lambda: kept.record("x1").is_failed)
        for name in others:
            await kept.write(name, b"\n")
            await kept.end(name)
            assert b"failed" not in (kept.path(name) / "record.jsonl").read_bytes()
        await processes.until(lambda: open_fds(pid) == before)

    assert (refused["kind"], refused["what"]) == ("failed", "command")
    assert not record.is_failed


async def test_every_daemon_hears_of_a_start_that_failed(machine: machines.Machine) -> None:
    """Whoever asked for it may have been killed before the answer."""
    async with keeping.keeping(machine) as kept:
        second = await keeping.connected(machine.folder, machine.environ)
        await kept.refused("start", "x1", **kept.order(("no-such-command",), pty=TERMINAL))
        heard = await second.end("x1")
        await second.link.close()

    assert (heard["is"], heard["what"], heard["errno"]) == ("failed", "command", 2)
    assert heard["endedAtMs"]
