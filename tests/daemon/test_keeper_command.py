"""Commands under a keeper: how they start, what they write, and how they end."""

import asyncio
import errno
import hashlib
import os
import pathlib
import shutil
import signal
import time
from collections.abc import AsyncIterator

import pytest

from paddock.daemon import output
from tests.daemon import keeping
from tests.daemon import machine as machines
from tests.support import processes

FLOOD = 100 * 1024 * 1024


@pytest.fixture
async def kept(machine: machines.Machine) -> AsyncIterator[keeping.Daemon]:
    async with keeping.keeping(machine) as daemon:
        yield daemon


async def test_a_command_ends_with_its_code_and_its_outputs_apart(kept: keeping.Daemon) -> None:
    started = await kept.shell("x1", "echo out; echo err >&2; exit 3")
    end = await kept.end("x1")
    record = kept.record("x1")

    assert (end["exitCode"], end["signal"], end["timedOut"]) == (3, None, False)
    assert (end["stdoutBytes"], end["stderrBytes"], end["stdinBytes"]) == (4, 4, 0)
    assert (kept.written("x1"), kept.written("x1", "stderr")) == (b"out\n", b"err\n")
    assert (record.pid, record.ticks) == (started["pid"], started["ticks"])
    assert (record.is_ended, record.exit_code, record.digest, record.namespace) == (True, 3, "d1", "here")


async def test_times_are_counted_from_the_daemons_clock(kept: keeping.Daemon) -> None:
    await kept.shell("x1", "sleep 0.2", beganAtMs=5_000)
    end = await kept.end("x1")

    assert 5_200 <= end["endedAtMs"] < 15_000


async def test_a_command_gets_exactly_its_environment_and_folder(kept: keeping.Daemon) -> None:
    script = "import os; print(dict(os.environb), os.getcwd())"
    await kept.start("x1", *keeping.python(script), env={"A": "ä", "LC_ALL": "C.UTF-8"}, cwd="/usr/lib")
    await kept.end("x1")

    expected = {b"A": "ä".encode(), b"LC_ALL": b"C.UTF-8"}
    assert kept.written("x1") == f"{expected} /usr/lib\n".encode()


async def test_a_command_begins_with_default_signals_and_no_descriptors_of_ours(kept: keeping.Daemon) -> None:
    script = (
        "import os, resource, signal\n"
        "known = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD)\n"
        "print(all(signal.getsignal(one) in (signal.SIG_DFL, signal.default_int_handler) for one in known))\n"
        "print(open('/proc/self/status').read().count('SigBlk:\\t0000000000000000'))\n"
        "print(os.getsid(0) == os.getpgid(0) == os.getpid())\n"
        "print(sorted(os.listdir('/proc/self/fd')))\n"
    )
    await kept.start("x1", *keeping.python(script))
    await kept.end("x1")
    await kept.shell("x2", "ulimit -Sn; trap '' PIPE; yes | head -c 1; true")
    await kept.end("x2")
    here = str(os.sysconf("SC_OPEN_MAX"))

    # 3 is the listing itself.
    assert kept.written("x1").decode().splitlines() == ["True", "1", "True", "['0', '1', '2', '3']"]
    assert kept.written("x2").decode().split() == [here, "y"]


async def test_a_leader_that_a_signal_ends_has_no_code(kept: keeping.Daemon) -> None:
    await kept.shell("x1", "kill -SEGV $$")
    end = await kept.end("x1")

    assert (end["exitCode"], end["signal"], end["timedOut"]) == (None, "SIGSEGV", False)


async def test_a_time_out_kills_the_whole_group_and_says_so(kept: keeping.Daemon) -> None:
    await kept.shell("x1", "sleep 60 & echo $!; wait", timeoutS=0.3)
    end = await kept.end("x1")
    grandchild = int(kept.written("x1"))
    await processes.until(lambda: not processes.is_running(grandchild))

    assert (end["exitCode"], end["signal"], end["timedOut"]) == (None, "SIGKILL", True)
    assert kept.record("x1").is_timed_out
    assert not processes.is_running(grandchild)


async def test_a_time_out_that_comes_before_the_command_runs_ends_it_too(kept: keeping.Daemon) -> None:
    await kept.start("x1", "sleep", "60", timeoutS=0.000001)
    end = await kept.end("x1")

    assert (end["signal"], end["timedOut"]) == ("SIGKILL", True)


async def test_a_signal_reaches_the_whole_group(kept: keeping.Daemon) -> None:
    await kept.shell(
        "x1", "trap 'wait; exit 9' TERM; (trap 'echo child; exit' TERM; echo up; sleep 60 & wait) & wait"
    )
    await kept.ask("watch", "x1")
    await kept.until_grown("x1", b"up")
    await kept.ask("signal", "x1", number=int(signal.SIGTERM))
    end = await kept.end("x1")

    assert kept.written("x1") == b"up\nchild\n"
    assert end["exitCode"] == 9


async def test_what_cannot_be_started_says_what_was_at_fault(
    kept: keeping.Daemon, tmp_path: pathlib.Path
) -> None:
    for name, text in (("plain", "x"), ("orphan", "#!/no/such/interpreter\n"), ("bare", "echo x\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644 if name == "plain" else 0o755)
    orders: dict[str, tuple[str, dict[str, object]]] = {
        "missing": ("no-such-command", {}),
        "missing-path": ("/no/such", {}),
        "plain": (str(tmp_path / "plain"), {}),
        "plain-on-path": ("plain", {"env": {"PATH": f"/nowhere:{tmp_path}"}}),
        "a-folder": (str(tmp_path), {}),
        "orphan": (str(tmp_path / "orphan"), {}),
        "bare": (str(tmp_path / "bare"), {}),
        "no-cwd": ("true", {"cwd": "/no/such"}),
        "file-cwd": ("true", {"cwd": str(tmp_path / "plain")}),
        "long": ("x" * 5000, {}),
        "long-path": ("/" + "x" * 5000, {}),
        "too-much": ("true", {"env": {"A": "x" * (1 << 20)}}),
    }
    errors = {}
    for exec_id, (program, more) in orders.items():
        error = await kept.refused("start", exec_id, **kept.order((program,), **more))
        record = kept.record(exec_id)
        assert (error["kind"], record.is_failed, record.pid) == ("failed", True, 0)
        assert (record.failed_what, record.failed_errno) == (error["what"], error["errno"])
        errors[exec_id] = (error["what"], errno.errorcode[error["errno"]])

    assert errors == {
        "missing": ("command", "ENOENT"),
        "missing-path": ("command", "ENOENT"),
        "plain": ("command", "EACCES"),
        "plain-on-path": ("command", "EACCES"),
        "a-folder": ("command", "EACCES"),
        "orphan": ("interpreter", "ENOENT"),
        "bare": ("command", "ENOEXEC"),
        "no-cwd": ("cwd", "ENOENT"),
        "file-cwd": ("cwd", "ENOTDIR"),
        "long": ("command", "ENOENT"),
        "long-path": ("command", "ENAMETOOLONG"),
        "too-much": ("command", "E2BIG"),
    }
    assert (await kept.ask("list"))["executions"] == {}


async def test_what_no_process_can_be_given_is_refused_before_anything_is_written(
    kept: keeping.Daemon,
) -> None:
    orders: list[tuple[tuple[str, ...], dict[str, object], str]] = [
        (("a\0b",), {}, "argv"),
        (("\ud800",), {}, "argv"),
        (("",), {}, "argv"),
        ((), {}, "argv"),
        (("true",), {"env": {"A=B": "x"}}, "env"),
        (("true",), {"env": {"": "x"}}, "env"),
        (("true",), {"env": {"A": "x\0"}}, "env"),
        (("true",), {"cwd": "/\0"}, "cwd"),
        (("true",), {"uid": 1}, "user"),
        (("true",), {"gid": 1}, "user"),
    ]
    answers = [await kept.refused("start", "x1", **kept.order(argv, **more)) for argv, more, _ in orders]

    assert answers == [{"kind": "invalid", "what": what} for _, _, what in orders]
    assert not kept.path("x1").exists()


async def test_an_id_is_used_once(kept: keeping.Daemon) -> None:
    await kept.shell("x1", "echo once > new; cat new >> all; mv new log; sleep 60", cwd=str(kept.folder))
    again = await kept.refused("start", "x1", **kept.order(("false",)))
    await processes.until((kept.folder / "log").exists)
    await kept.ask("signal", "x1", number=9)
    await kept.end("x1")
    after = await kept.refused("start", "x1", **kept.order(("false",)))

    assert (again["kind"], after["kind"]) == ("exists", "exists")
    assert (kept.folder / "all").read_text() == "once\n"


async def test_another_user_is_switched_to_or_refused(kept: keeping.Daemon) -> None:
    order = kept.order(("/usr/bin/id",), uid=12345, gid=23456, groups=[34567], cwd="/")
    if os.getuid():
        refused = await kept.refused("start", "x1", **order)
        said = [refused["what"], errno.errorcode[refused["errno"]]]
    else:
        await kept.ask("start", "x1", **order)
        await kept.end("x1")
        said = kept.written("x1").decode().split()

    expected = ["user", "EPERM"] if os.getuid() else ["uid=12345", "gid=23456", "groups=23456,34567"]
    assert said == expected


async def test_a_terminal_of_another_user_is_theirs(kept: keeping.Daemon) -> None:
    order = kept.order(
        ("/bin/sh", "-c", "test -O $(tty) && echo mine; id -u"),
        uid=12345, gid=23456, groups=[], pty={"columns": 80, "rows": 24},
    )  # fmt: skip
    if os.getuid():
        said = (await kept.refused("start", "x1", **order))["what"]
    else:
        await kept.ask("start", "x1", **order)
        await kept.end("x1")
        said = kept.written("x1").decode()

    assert said == ("user" if os.getuid() else "mine\r\n12345\r\n")


async def test_a_name_can_be_used_again_while_the_forgotten_ones_pipes_are_held(kept: keeping.Daemon) -> None:
    await kept.shell("x1", "(sleep 1; exit) &")
    await kept.end("x1")
    shutil.rmtree(kept.path("x1"))
    kept.forget("x1")
    await kept.shell("x1", "echo new; sleep 1.5; exit 3")
    listed = (await kept.ask("list"))["executions"]
    end = await kept.end("x1")

    assert listed["x1"]["state"] == "running"
    assert (end["exitCode"], kept.written("x1")) == (3, b"new\n")


async def test_100_mib_with_nobody_listening_are_there_afterwards(kept: keeping.Daemon) -> None:
    script = f"import os; data = bytes(range(256)) * 4096; [os.write(1, data) for _ in range({FLOOD >> 20})]"
    await kept.start("x1", *keeping.python(script))
    end = await kept.end("x1")
    expected = hashlib.sha256(bytes(range(256)) * 4096 * (FLOOD >> 20)).hexdigest()

    assert end["stdoutBytes"] == FLOOD
    assert hashlib.sha256(kept.written("x1")).hexdigest() == expected


async def test_beyond_its_limit_a_command_keeps_its_newest_output(kept: keeping.Daemon) -> None:
    limit = 64 * 1024
    await kept.shell("x1", "seq 1 100000", limitBytes=limit)
    end = await kept.end("x1")
    whole = b"".join(b"%d\n" % number for number in range(1, 100001))
    written = kept.written("x1")

    assert end["stdoutBytes"] == len(whole)
    assert limit <= len(written) <= limit + output.segment_bytes_for(limit)
    assert whole.endswith(written)


async def test_a_watcher_hears_of_growth_that_is_on_disk_already(kept: keeping.Daemon) -> None:
    await kept.shell("x1", "read x; echo $x; read y; echo $y >&2; read z", stdin=True)
    watched = await kept.ask("watch", "x1")
    await kept.write("x1", b"one\n")
    await kept.until_grown("x1", b"one\n")
    await kept.write("x1", b"two\n")
    await processes.until(lambda: len(kept.grew) == 2)
    told = [(header["stdout"], header["stderr"]) for header in kept.grew]
    await kept.ask("unwatch", "x1")
    await kept.write("x1", eof=True)
    await kept.end("x1")

    assert (watched["state"], watched["stdout"], watched["isStdinOpen"]) == ("running", 0, True)
    assert told == [(4, 0), (4, 4)]


async def test_a_flood_starves_nobody(kept: keeping.Daemon) -> None:
    for number in range(4):
        await kept.start(f"flood{number}", "yes", limitBytes=1 << 20)
        await kept.ask("watch", f"flood{number}")
    took = []
    for number in range(10):
        began = time.monotonic()
        await kept.shell(f"x{number}", "echo hello")
        await kept.end(f"x{number}")
        took.append(time.monotonic() - began)
    grown = max(int(str(header["stdout"])) for header in kept.grew)
    for number in range(4):
        await kept.ask("signal", f"flood{number}", number=9)

    assert sorted(took)[5] < 1
    assert grown > 1 << 20
    assert all(kept.written(f"x{number}") == b"hello\n" for number in range(10))


async def test_64_commands_at_once_each_have_their_own_output_and_code(kept: keeping.Daemon) -> None:
    names = [f"x{number}" for number in range(64)]
    async with asyncio.TaskGroup() as tasks:
        for number, name in enumerate(names):
            tasks.create_task(kept.shell(name, f"echo {name}; echo {name} >&2; exit {number}"))
    ends = [await kept.end(name) for name in names]

    assert [end["exitCode"] for end in ends] == list(range(64))
    assert all(
        kept.written(name, stream) == f"{name}\n".encode()
        for name in names
        for stream in ("stdout", "stderr")
    )
    assert (await kept.ask("list"))["executions"] == {}


async def test_a_grandchild_that_holds_the_pipe_does_not_hold_the_end(kept: keeping.Daemon) -> None:
    began = time.monotonic()
    script = "(while [ ! -e go ]; do sleep 0.01; done; echo late) & echo early; exit 5"
    await kept.shell("x1", script, cwd=str(kept.folder))
    end = await kept.end("x1")
    took_s = time.monotonic() - began
    listed = (await kept.ask("list", "x1"))["executions"]
    (kept.folder / "go").touch()
    await processes.until(lambda: kept.written("x1") == b"early\nlate\n")

    assert (end["exitCode"], end["stdoutBytes"]) == (5, 6)
    assert took_s >= 0.5
    assert (listed["x1"]["state"], listed["x1"]["end"]["exitCode"]) == ("ended", 5)
    assert kept.record("x1").stdout_bytes == 6


async def test_what_grandchildren_write_later_costs_nothing_of_the_commands_own(kept: keeping.Daemon) -> None:
    own = "head -c 60000 /dev/zero | tr '\\0' a"
    await kept.shell("x1", f"{own}; (sleep 0.7; yes | head -c 300000; echo done >&2) &", limitBytes=64 * 1024)
    end = await kept.end("x1")
    await processes.until(lambda: b"done" in kept.written("x1", "stderr"))
    written = kept.written("x1")

    assert end["stdoutBytes"] == 60000
    assert written.startswith(b"a" * 60000)
    assert len(written) == 64 * 1024


async def test_what_is_asked_of_one_that_has_ended_or_never_was_is_refused(kept: keeping.Daemon) -> None:
    await kept.shell("x1", "sleep 0.9 & exit 0")
    await kept.end("x1")
    of_ended = [
        await kept.refused("write", "x1", b"x"),
        await kept.refused("signal", "x1", number=15),
        await kept.refused("resize", "x1", columns=80, rows=24),
    ]
    of_nobody = [
        await kept.refused(do, "x2", number=15, columns=80, rows=24)
        for do in ("write", "signal", "resize", "watch")
    ]

    assert [error["kind"] for error in of_ended] == ["not_running"] * 3
    assert [error["kind"] for error in of_nobody] == ["unknown"] * 4
