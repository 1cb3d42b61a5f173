"""The keeper's own life: alone in its folder, sturdy at its door, and gone when it should be."""

import asyncio
import contextlib
import pathlib
import random
import resource
import signal
import socket
import struct
import subprocess
import sys

import pytest

from paddock.daemon import exec_record, keeper_link, keeper_protocol
from tests.daemon import keeping
from tests.daemon import machine as machines
from tests.support import processes

SUPERVISE = "import sys; from paddock.daemon import supervise; sys.exit(supervise.main({0!r}, {1!r}))"
ORPHANS = """
import os
for _ in range(1000):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(3)
        os._exit(4)
    os.wait()
print("orphaned", flush=True)
os._exit(7)
"""
MIB = 1024 * 1024


def raw(folder: pathlib.Path) -> socket.socket:
    """A connection that can say anything."""
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(keeping.WAIT_S)
    connected.connect(str(folder / keeper_protocol.SOCKET_NAME))
    return connected


def pid_of(machine: machines.Machine) -> int:
    return int((machine.folder / keeper_protocol.LOCK_NAME).read_text())


def private_kib_of(pid: int) -> int:
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def let_it_open(pid: int, files: int) -> None:
    """Set how many files this process may have open."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(files, hard), hard))


def test_it_imports_next_to_nothing() -> None:
    """It is in memory wherever a command was started; the budget is a few MiB."""
    before = "import sys; before = set(sys.modules); "
    script = before + "from paddock.daemon import keeper; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    heavy = {
        "asyncio",
        "msgspec",
        "nats",
        "subprocess",
        "pathlib",
        "logging",
        "typing",
        "dataclasses",
        "threading",
    }

    assert "paddock.daemon.keeper_door" in done.stdout.split()
    assert heavy.isdisjoint(done.stdout.split())


async def test_an_idle_keeper_is_small(machine: machines.Machine) -> None:
    async with keeping.keeping(machine) as kept:
        for number in range(20):
            await kept.shell(f"x{number}", "seq 10000")
            await kept.end(f"x{number}")
        private_kib = private_kib_of(pid_of(machine))

    assert private_kib < 12 * 1024


async def test_there_is_one_keeper_a_folder(machine: machines.Machine) -> None:
    async with keeping.keeping(machine) as kept:
        second = machine.start("keep")
        code = await machines.ended(second)
        pong = await kept.ask("ping")

    assert code == keeper_protocol.EXIT_TAKEN
    assert f"process {pong['pid']} holds it" in machine.log_lines("cannot_keep")[0]["detail"]


async def test_it_ends_when_nothing_has_run_for_a_while(machine: machines.Machine) -> None:
    process = keeping.start_keeper(machine, idle_s=0.3)
    kept = await keeping.connected(machine.folder, machine.environ)
    await kept.shell("x1", "sleep 0.5; (sleep 0.9; echo late) &")
    await kept.end("x1")
    was_there = process.poll() is None
    code = await machines.ended(process)
    await asyncio.wait_for(kept.lost.wait(), keeping.WAIT_S)

    assert (was_there, code) == (True, 0)
    assert kept.written("x1") == b"late\n"
    assert not (machine.folder / keeper_protocol.SOCKET_NAME).exists()


async def test_a_socket_that_was_left_behind_is_replaced(machine: machines.Machine) -> None:
    first = keeping.start_keeper(machine)
    before = await keeping.connected(machine.folder, machine.environ)
    first.kill()
    first.wait()
    await asyncio.wait_for(before.lost.wait(), keeping.WAIT_S)
    async with keeping.keeping(machine) as kept:
        pong = await kept.ask("ping")

    assert pong["pid"] == pid_of(machine) != first.pid


async def test_another_daemon_goes_on_where_the_first_was(machine: machines.Machine) -> None:
    keeping.start_keeper(machine)
    first = await keeping.connected(machine.folder, machine.environ)
    await first.shell("x1", "echo up; cat; exit 6", stdin=True)
    await first.write("x1", b"abc", 0)
    await first.link.close()
    second = await keeping.connected(machine.folder, machine.environ)
    listed = (await second.ask("list"))["executions"]["x1"]
    await second.ask("watch", "x1")
    await second.write("x1", b"abcdef", 0, eof=True)
    end = await second.end("x1")
    await second.link.close()

    assert (listed["state"], listed["stdin"], listed["isStdinOpen"]) == ("running", 3, True)
    assert (end["exitCode"], end["stdinBytes"]) == (6, 6)
    assert second.written("x1") == b"up\nabcdef"


async def test_what_a_lost_daemon_still_wanted_to_write_is_given_up(machine: machines.Machine) -> None:
    keeping.start_keeper(machine)
    first = await keeping.connected(machine.folder, machine.environ)
    await first.shell(
        "x1", "while [ ! -e go ]; do sleep 0.01; done; cat | wc -c", stdin=True, cwd=str(machine.home)
    )
    data = b"x" * 200_000
    writing = asyncio.create_task(first.write("x1", data, 0))
    second = await keeping.connected(machine.folder, machine.environ)
    while not (taken := (await second.ask("list"))["executions"]["x1"]["stdin"]):
        pass
    await first.link.close()
    with pytest.raises(Exception, match="it is gone"):
        await writing
    (machine.home / "go").touch()
    said = await second.write("x1", data, 0, eof=True)
    await second.end("x1")
    await second.link.close()

    assert 0 < taken < len(data)
    assert said == (len(data), True)
    assert int(second.written("x1")) == len(data)


async def test_garbage_at_the_door_costs_only_its_own_connection(machine: machines.Machine) -> None:
    garbage = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 100,
        struct.pack(">II", 4, 0) + b"nope",
        struct.pack(">II", 2, 0) + b"[]",
        struct.pack(">II", 5, 0) + b'"\xff\xff\xff"',
        struct.pack(">II", 2, 1 << 31),
        struct.pack(">II", 100_000, 0) + b"[" * 100_000,
    ]
    async with keeping.keeping(machine) as kept:
        await kept.shell("x1", "read x; exit 5", stdin=True)
        for text in garbage:
            with raw(machine.folder) as connected, contextlib.suppress(BrokenPipeError):
                connected.sendall(text)
                with contextlib.suppress(ConnectionResetError):
                    assert connected.recv(100) == b""
        half = raw(machine.folder)
        half.sendall(struct.pack(">II", 100, 0) + b"{")
        await kept.write("x1", b"\n")
        end = await kept.end("x1")
        half.close()
        pong = await kept.ask("ping")

    assert end["exitCode"] == 5
    assert pong["pid"] == pid_of(machine)


async def test_requests_that_are_none_are_refused(machine: machines.Machine) -> None:
    async with keeping.keeping(machine) as kept:
        order = kept.order(("true",))
        await kept.start("x1", "sleep", "60")
        requests: list[dict[str, object]] = [
            {},
            {"do": 7},
            {"do": "dance"},
            {"do": "dance", "id": "x1"},
            {"do": "signal"},
            {"do": "signal", "id": "x1"},
            {"do": "signal", "id": "x1", "number": 0},
            {"do": "signal", "id": "x1", "number": 65},
            {"do": "signal", "id": "x1", "number": "TERM"},
            {"do": "resize", "id": "x1", "columns": 0, "rows": 1},
            {"do": "resize", "id": "x1", "columns": 1, "rows": 70000},
            {"do": "write", "id": "x1", "offset": -1},
            {"do": "start", **order},
            *({"do": "start", **order, "id": bad} for bad in ("", "a/b", "..", "ä", "x" * 129, 7, None)),
            *({"do": "start", **order, "id": "x2", "timeoutS": bad} for bad in (0, -1, "1")),
            {"do": "start", **order, "id": "x2", "pty": {"columns": 80}},
            {"do": "start", **order, "id": "x2", "argv": "true"},
            {"do": "start", **order, "id": "x2", "limitBytes": None},
            {"do": "start", **order, "id": "x2", "namespace": 5},
        ]
        kinds = []
        for request in requests:
            with pytest.raises(keeper_link.RefusedError) as refused:
                await kept.link.ask(request)
            kinds.append(refused.value.kind)
        listed = (await kept.ask("list"))["executions"]

    expected = ["bad_request" if request.get("id") != "dance" else "unknown" for request in requests]
    assert kinds == expected
    assert list(listed) == ["x1"]
    assert sorted(path.name for path in (machine.folder / "exec").iterdir()) == ["x1"]


async def test_a_daemon_that_does_not_read_holds_up_nobody(machine: machines.Machine) -> None:
    async with keeping.keeping(machine) as kept:
        await kept.start("x1", "yes", limitBytes=1 << 20)
        silent = raw(machine.folder)
        silent.sendall(keeper_protocol.encode({"n": 1, "do": "watch", "id": "x1"}))
        await kept.ask("watch", "x1")
        async with asyncio.timeout(keeping.WAIT_S):
            while sum(int(str(header["stdout"])) > 1 << 28 for header in kept.grew) < 1:
                await kept.ask("ping")
        await kept.ask("signal", "x1", number=9)
        end = await kept.end("x1")
        heard = await asyncio.to_thread(_until_ended, silent)
        silent.close()

    assert heard[-1]["is"] == "ended"
    assert heard[-1]["stdoutBytes"] == end["stdoutBytes"]
    assert len(heard) < 5_000


async def test_a_thousand_orphans_leave_no_zombie_and_steal_no_exit_code(machine: machines.Machine) -> None:
    supervisor = machine.start_python("-c", SUPERVISE.format(str(machine.folder), list(keeper_link.COMMAND)))
    kept = await keeping.connected(machine.folder, machine.environ)
    await kept.start("x1", *keeping.python(ORPHANS))
    await kept.shell("x2", "sleep 0.5; exit 9")
    end = await kept.end("x1")
    other = await kept.end("x2")
    keeper_pid = (await kept.ask("ping"))["pid"]
    await processes.until(lambda: machines.zombies_of(supervisor.pid) == 0)
    zombies = machines.zombies_of(keeper_pid)
    await kept.link.close()
    supervisor.terminate()

    assert (end["exitCode"], other["exitCode"], zombies) == (7, 9, 0)
    assert await machines.ended(supervisor) == 0


async def test_the_supervisors_death_ends_the_keeper_and_all_it_keeps(machine: machines.Machine) -> None:
    supervisor = machine.start_python("-c", SUPERVISE.format(str(machine.folder), list(keeper_link.COMMAND)))
    kept = await keeping.connected(machine.folder, machine.environ)
    await kept.shell("x1", "sleep 60 & echo $!; wait")
    await kept.ask("watch", "x1")
    await kept.until_grown("x1", b"\n")
    await kept.shell("x2", "sleep 60 & echo $!")
    await kept.end("x2")
    pids = [kept.record("x1").pid, int(kept.written("x1")), int(kept.written("x2")), pid_of(machine)]
    before = [processes.is_running(pid) for pid in pids]
    supervisor.kill()
    supervisor.wait()
    await processes.until(lambda: not any(processes.is_running(pid) for pid in pids))
    await kept.link.close()

    assert before == [True] * 4
    assert exec_record.read(kept.path("x1")) is not None


async def test_sigterm_ends_the_keeper_and_all_it_keeps(machine: machines.Machine) -> None:
    process = keeping.start_keeper(machine)
    kept = await keeping.connected(machine.folder, machine.environ)
    started = await kept.start("x1", "sleep", "60")
    for number in (signal.SIGINT, signal.SIGHUP):
        process.send_signal(number)
    await kept.ask("ping")
    process.terminate()
    code = await machines.ended(process)
    await processes.until(lambda: not processes.is_running(started["pid"]))

    assert code == 0


async def test_a_keeper_that_is_killed_at_any_moment_leaves_what_can_be_read(
    machine: machines.Machine,
) -> None:
    whole = b"".join(b"%d\n" % number for number in range(1, 200001))
    rng = random.Random(4711)
    records, cut = [], 0
    for life in range(6):
        process = keeping.start_keeper(machine)
        kept = await keeping.connected(machine.folder, machine.environ)
        names = [f"x{life}-{number}" for number in range(10)]
        for name in names:
            encoded = keeper_protocol.encode({"do": "start", "id": name, **kept.order(("seq", "200000"))})
            kept.link._wire.send(encoded)  # type: ignore[union-attr]
        await asyncio.sleep(rng.uniform(0.001, 0.08))
        process.kill()
        process.wait()
        await kept.link.close()
        for name in names:
            record = exec_record.read(kept.path(name))
            if record is not None:
                records.append(record)
                written = kept.written(name)
                cut += len(written) < len(whole)
                assert whole.startswith(written)
                assert not record.is_ended or len(written) == record.stdout_bytes

    assert records
    assert cut
    assert all(record.pid or not record.is_ended for record in records)


async def test_on_a_full_disk_commands_wait_and_nothing_is_lost(machine: machines.Machine) -> None:
    """And commands that write nothing go on, and new ones are refused while there is no room for their record."""
    within = machines.in_namespaces("--size", str(8 * MIB), "--tmpfs", str(machine.folder))
    script = keeping.KEEP.format(folder=str(machine.folder), idle_s=60, write_s=10)
    outer = machine.start_python("-c", script, within=within)
    await processes.until(lambda: "ready" in machine.log_path.read_text())
    inside = pathlib.Path(f"/proc/{machines.descendants(outer.pid)[0]}/root{machine.folder}")
    kept = await keeping.connected(inside, machine.environ)
    await kept.shell("quiet", "read x; exit 5", stdin=True)
    (inside / "filler").write_bytes(b"x" * 4 * MIB)
    await kept.shell("loud", "seq 1 1000000; echo over >&2", pty=None)
    await kept.ask("watch", "loud")
    async with asyncio.timeout(keeping.WAIT_S):
        while not (stalled := (await kept.ask("list"))["executions"]["loud"]["stalled"]):
            pass
    refused = await kept.refused("start", "new", **kept.order(("true",)))
    await kept.write("quiet", b"\n")
    quiet = await kept.end("quiet")
    (inside / "filler").unlink()
    loud = await kept.end("loud")
    whole = b"".join(b"%d\n" % number for number in range(1, 1000001))
    written, again = kept.written("loud"), await kept.start("new", "true")
    records = [kept.record("quiet").exit_code, kept.record("loud").exit_code]
    await kept.link.close()

    assert "no space left" in stalled
    assert (refused["kind"], refused["errno"], bool(again["pid"])) == ("disk", 28, True)
    assert (quiet["exitCode"], loud["exitCode"], records) == (5, 0, [5, 0])
    assert written == whole
    assert any("no space" in str(header["stalled"]) for header in kept.grew)


async def test_removed_folders_cost_their_output_and_nothing_else(machine: machines.Machine) -> None:
    async with keeping.keeping(machine) as kept:
        await kept.shell("x1", "read x; seq 1 100000; exit 8", stdin=True, limitBytes=64 * 1024)
        kept.path("x1").rename(machine.folder / "gone")
        for path in (machine.folder / "gone").iterdir():
            path.unlink()
        (machine.folder / "gone").rmdir()
        await kept.write("x1", b"\n")
        end = await kept.end("x1")

    assert (end["exitCode"], end["stdoutBytes"]) == (8, 588895)
    assert not kept.path("x1").exists()


async def test_when_it_has_no_descriptor_left_a_start_says_so_and_leaves_none_open(
    machine: machines.Machine,
) -> None:
    async with keeping.keeping(machine) as kept:
        let_it_open(pid_of(machine), 12)
        refused = await kept.refused("start", "x1", **kept.order(("true",)))
        let_it_open(pid_of(machine), 1024)
        await kept.start("x2", "true")
        end = await kept.end("x2")
        fds = len([*pathlib.Path(f"/proc/{pid_of(machine)}/fd").iterdir()])  # noqa: ASYNC240

    assert (refused["kind"], refused["what"], refused["errno"]) == ("failed", "spawn", 24)
    assert end["exitCode"] == 0
    assert fds <= 12


def _until_ended(connected: socket.socket) -> list[keeper_protocol.Header]:
    decoder = keeper_protocol.Decoder()
    heard: list[keeper_protocol.Header] = []
    while not heard or heard[-1].get("is") != "ended":
        heard += [header for header, _ in decoder.feed(connected.recv(1 << 16))]
    return heard
