"""kill -9 of the daemon, of the keeper and of the supervisor under running commands: nothing twice, nothing made up."""

import asyncio
import hashlib
import os
import random
import signal

import pytest

from paddock.bus import caller
from paddock.contracts import errors, executions
from paddock.daemon import calls, exec_record
from paddock.daemon import processes as known
from tests.daemon import commands as of_commands
from tests.daemon import machine as machines
from tests.support import nats_server, processes

KIB = 1024
COUNTING = "trap '' HUP; i=0; while [ ! -e stop ]; do echo line $i; i=$((i+1)); done; exit 5"


async def test_a_command_outlives_its_daemon_and_its_end_is_known(commands: of_commands.Commands) -> None:
    """What was seen before and after are one output, byte for byte, and the exit code is the command's."""
    await commands.sh("c1", COUNTING)
    before = await commands.follow_to("c1", 300 * KIB)
    first_daemon = commands.machine.state()["pid"]
    await commands.kill_daemon()
    running = await commands.now("c1")
    at = len(before.stdout)
    middle = await commands.follow_to("c1", at + 300 * KIB, at)
    (commands.machine.home / "stop").touch()
    rest = await commands.follow("c1", at + len(middle.stdout))
    whole = before.stdout + middle.stdout + rest.stdout
    count = whole.count(b"\n")

    assert commands.machine.state()["pid"] != first_daemon
    assert running.state == "running"
    assert whole == b"".join(b"line %d\n" % number for number in range(count))
    assert rest.end is not None
    assert (rest.end.state, rest.end.exit_code, rest.end.lost) == ("ended", 5, False)
    assert rest.end.stdout_bytes == len(whole)
    assert (await commands.follow("c1")).stdout == whole


async def test_a_viewer_whose_daemon_dies_is_told_and_goes_on_where_it_was(
    commands: of_commands.Commands,
) -> None:
    await commands.sh("c1", "read x; seq 1 1000; read x; seq 1001 2000", stdin=True)
    async with commands.attached("c1") as channel:
        await commands.write("c1", b"\n")
        seen = of_commands.Seen(channel.opened)
        while not seen.stdout.endswith(b"\n1000\n"):
            seen.take(await channel.receive())
        await commands.kill_daemon()
        with pytest.raises(errors.ChannelBroken):
            await channel.receive()
    await commands.write("c1", b"\n")
    rest = await commands.follow("c1", len(seen.stdout))

    assert seen.stdout + rest.stdout == b"".join(b"%d\n" % number for number in range(1, 2001))


async def test_a_daemon_that_is_told_to_end_keeps_nobody_waiting(commands: of_commands.Commands) -> None:
    await commands.sh("c1", "read x; exit 8", stdin=True)
    async with asyncio.TaskGroup() as tasks, commands.attached("c1") as channel:
        waiting = tasks.create_task(commands.ask(executions.WAIT, executions.WaitParams(id="c1")))
        await commands.now("c1")  # asked after it and on the same connection, so that one has begun
        os.kill(commands.machine.state()["pid"], signal.SIGTERM)
        with pytest.raises((errors.ShuttingDown, errors.ChannelBroken)):
            await channel.receive()
        await processes.until(lambda: len(commands.registrar.readies) > 1)
    await commands.write("c1", b"\n")

    assert waiting.result().state == "running"
    assert (await commands.ended("c1")).exit_code == 8


async def test_it_is_the_same_in_a_sandbox_with_numbers_of_its_own(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    machine.tell(server)
    outer = machine.start_python(
        "-m", "paddock.daemon", "supervise", "--sandbox", "m1-1", within=machines.in_namespaces()
    )
    await processes.until(lambda: registrar.readies)
    commands = of_commands.Commands(machine, outer, asking, registrar)
    await commands.sh("c1", "echo before; read x; echo after; exit 5", stdin=True)
    await commands.sh("c2", f"sleep 0.3; kill -9 {machine.state()['pid']}; exit 6")
    await processes.until(lambda: len(registrar.readies) > 1)
    await commands.write("c1", b"\n", eof=True)
    ends = [await commands.ended("c1"), await commands.ended("c2")]

    assert [one.exit_code for one in ends] == [5, 6]
    assert (await commands.follow("c1")).stdout == b"before\nafter\n"


async def test_a_terminal_and_what_is_typed_survive_the_daemon(commands: of_commands.Commands) -> None:
    await commands.sh("c1", "stty -echo; read a; read b; echo $a $b; stty size; exit 4", pty=True, rows=33)
    await commands.write("c1", b"one\n", 0)
    await commands.kill_daemon()
    await commands.ask(executions.RESIZE, executions.ResizeParams(id="c1", columns=99, rows=44))
    repeated = await commands.write("c1", b"one\n", 0)
    await commands.write("c1", b"two\n", 4)
    ended = await commands.ended("c1")

    assert repeated == 4
    assert ended.exit_code == 4
    assert (await commands.follow("c1")).stdout.endswith(b"one two\r\n44 99\r\n")


async def test_stdin_goes_on_across_the_daemons_death(commands: of_commands.Commands) -> None:
    data = random.Random(4711).randbytes(700 * KIB)
    await commands.start("c1", "sha256sum", stdin=True)
    for offset in range(0, len(data), 100 * KIB):
        taken = offset
        if offset == 300 * KIB:
            await commands.kill_daemon()
            taken = await commands.write("c1", data[offset - 50 * KIB : offset], offset - 50 * KIB)
        while taken < offset + 100 * KIB:
            taken = await commands.write("c1", data[taken : offset + 100 * KIB], taken)
    await commands.write("c1", b"", len(data), eof=True)
    ended = await commands.ended("c1")

    assert ended.stdin_bytes == len(data)
    assert (await commands.follow("c1")).stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_an_end_that_no_daemon_was_there_for_is_known_to_the_next(
    commands: of_commands.Commands,
) -> None:
    os.mkfifo(commands.machine.home / "gate")
    await commands.sh("c2", "read x < gate; echo end; exit 9")
    supervisor = commands.supervisor.pid
    os.kill(supervisor, signal.SIGSTOP)  # so that nobody starts the next daemon
    daemon_pid, command_pid = commands.machine.state()["pid"], (await commands.now("c2")).pid
    os.kill(daemon_pid, signal.SIGKILL)
    await asyncio.to_thread((commands.machine.home / "gate").write_text, "\n")
    await processes.until(lambda: not processes.is_running(command_pid))
    os.kill(supervisor, signal.SIGCONT)
    await processes.until(lambda: len(commands.registrar.readies) > 1)
    ended = await commands.ended("c2")
    again = await commands.sh("c2", "read x < gate; echo end; exit 9")

    assert (ended.exit_code, ended.lost, ended.signal) == (9, False, None)
    assert again == ended
    assert (await commands.follow("c2")).stdout == b"end\n"


async def test_what_was_said_of_a_command_is_said_by_every_later_daemon(
    commands: of_commands.Commands,
) -> None:
    before = await commands.sh("c1", "echo x >> lines; echo out; exit 3", background=False)
    with pytest.raises(errors.NoSuchPath) as raised:
        await commands.start("c2", "true", cwd="~/missing")
    (commands.machine.home / "missing").mkdir()
    await commands.kill_daemon()
    after = await commands.sh("c1", "echo x >> lines; echo out; exit 3", background=False)
    with pytest.raises(errors.NoSuchPath) as again:
        await commands.start("c2", "true", cwd="~/missing")
    with pytest.raises(errors.Conflict):
        await commands.sh("c1", "echo y >> lines")
    listed = await commands.ask(executions.LIST, executions.ListParams())

    assert after == before
    assert again.value.message == raised.value.message
    assert (commands.machine.home / "lines").read_text() == "x\n"
    assert [one.id for one in listed.executions] == ["c2", "c1"]


async def test_a_retry_storm_across_a_killed_daemon_starts_one_process(
    commands: of_commands.Commands,
) -> None:
    async def ask() -> executions.Execution | errors.Fault:
        try:
            return await commands.sh("c1", "echo x >> lines; exec sleep 60")
        except errors.Fault as fault:
            return fault

    async with asyncio.TaskGroup() as tasks:
        storm = [tasks.create_task(ask()) for _ in range(100)]
        await processes.until((commands.machine.home / "lines").exists)
        await commands.kill_daemon()
        for task in storm:
            task.cancel()
    async with asyncio.TaskGroup() as tasks:
        second = [tasks.create_task(ask()) for _ in range(100)]

    assert len({task.result().pid for task in second}) == 1  # type: ignore[union-attr]
    assert (commands.machine.home / "lines").read_text() == "x\n"


async def test_what_was_accepted_and_perhaps_not_started_is_unknown_and_never_run(
    commands: of_commands.Commands,
) -> None:
    """A crash between the record's first line and the start, as it is found on disk."""
    await commands.start("c0", "true", background=False)
    script = ["sh", "-c", "echo x >> lines"]
    asked = executions.StartParams(id="c1", command=script, background=False)
    accepted: dict[str, object] = {
        "id": "c1", "digest": calls.digest(executions.START, asked), "command": script, "pty": False, "stdin": False,
        "beganAtMs": 1, "limitBytes": 1 << 20, "segmentBytes": 1 << 16, "namespace": known.namespace(), "timeoutS": None,
    }  # fmt: skip
    (commands.shelf / "c1").mkdir(mode=0o700)
    folder = os.open(commands.shelf / "c1", os.O_RDONLY | os.O_DIRECTORY)
    os.close(exec_record.create(folder, accepted))
    os.close(folder)
    for is_another_daemon in (False, True):
        if is_another_daemon:
            await commands.kill_daemon()
        with pytest.raises(errors.OutcomeUnknown):
            await commands.sh("c1", "echo x >> lines")
    with pytest.raises(errors.Conflict):
        await commands.sh("c1", "echo y >> lines")
    with pytest.raises(errors.NotRunning):
        await commands.signal("c1", "TERM")
    now = await commands.now("c1")
    seen = await commands.follow("c1")

    assert (now.state, now.exit_code, now.lost, now.pid) == ("unknown", None, False, 0)
    assert seen.end == now
    assert not (commands.machine.home / "lines").exists()


async def test_commands_of_a_killed_keeper_are_lost_at_their_end(commands: of_commands.Commands) -> None:
    os.mkfifo(commands.machine.home / "gate")
    await commands.sh("c2", "trap '' HUP PIPE; echo kept; read x < gate; exit 3", stdin=True)
    await commands.follow_to("c2", 5)
    async with asyncio.TaskGroup() as tasks:
        viewer = tasks.create_task(commands.follow("c2"))
        await commands.kill_keeper()
        running = await commands.now("c2")
        with pytest.raises(errors.KeeperLost):
            await commands.write("c2", b"x")
        await asyncio.to_thread((commands.machine.home / "gate").write_text, "\n")
        ended = await commands.ended("c2")
    seen = viewer.result()
    again = await commands.sh("c2", "trap '' HUP PIPE; echo kept; read x < gate; exit 3", stdin=True)

    assert running.state == "running"
    assert (ended.state, ended.lost, ended.exit_code, ended.signal) == ("ended", True, None, None)
    assert seen.end == again == ended
    assert seen.stdout == b"kept\n"


async def test_what_a_killed_keeper_wrote_is_seen_while_its_command_goes_on(
    commands: of_commands.Commands,
) -> None:
    await commands.sh("c1", "trap '' HUP PIPE; echo kept; exec sleep 60")
    await commands.follow_to("c1", 5)
    await commands.kill_keeper()
    same_daemon = await commands.follow_to("c1", 5)
    await commands.kill_daemon()
    next_daemon = await commands.follow_to("c1", 5)

    assert same_daemon.stdout == next_daemon.stdout == b"kept\n"
    assert (await commands.now("c1")).state == "running"


async def test_a_keeper_that_hangs_keeps_nobody_from_an_answer(commands: of_commands.Commands) -> None:
    started = await commands.sh("c1", "echo kept; exec sleep 60")
    await commands.follow_to("c1", 5)
    keeper = commands.keeper_pid
    os.kill(keeper, signal.SIGSTOP)
    try:
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(commands.now("c1"))
            listing = tasks.create_task(commands.ask(executions.LIST, executions.ListParams()))
            tasks.create_task(commands.signal("c1", "TERM"))
        await processes.until(lambda: not processes.is_running(started.pid))
    finally:
        os.kill(keeper, signal.SIGCONT)

    assert waiting.result().state == "running"
    assert [one.id for one in listing.result().executions] == ["c1"]
    assert (await commands.ended("c1")).signal == "SIGTERM"


async def test_a_signal_still_reaches_what_a_killed_keeper_left(commands: of_commands.Commands) -> None:
    started = await commands.sh("c1", "trap '' HUP PIPE; exec sleep 60")
    await commands.kill_keeper()
    await commands.kill_daemon()
    await commands.signal("c1", "TERM")
    ended = await commands.ended("c1")

    assert ended.lost
    assert not processes.is_running(started.pid)


async def test_a_timeout_holds_though_its_keeper_was_killed(commands: of_commands.Commands) -> None:
    started = await commands.sh("c1", "trap '' HUP PIPE; exec sleep 60", timeout_s=1)
    await commands.kill_keeper()
    ended = await commands.ended("c1")

    assert ended.lost
    assert not processes.is_running(started.pid)


async def test_after_a_killed_keeper_the_next_command_gets_a_new_one(commands: of_commands.Commands) -> None:
    await commands.start("c1", "true", background=False)
    first = commands.keeper_pid
    await commands.kill_keeper()
    ended = await commands.sh("c2", "echo again", background=False)

    assert commands.keeper_pid != first
    assert ended.exit_code == 0
    assert (await commands.now("c1")).exit_code == 0


async def test_what_ended_is_forgotten_after_the_time_that_boot_json_says(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    machine.tell(server, execKeptS=0.01)
    supervisor = machine.start("supervise")
    await processes.until(lambda: registrar.readies)
    commands = of_commands.Commands(machine, supervisor, asking, registrar)
    await commands.sh("runs", "exec sleep 60")
    ended = await commands.sh("c1", "echo x >> lines", background=False)
    await processes.until(lambda: not (commands.shelf / "c1").exists())
    with pytest.raises(errors.NotFound):
        await commands.now("c1")

    assert ended.exit_code == 0
    assert (await commands.now("runs")).state == "running"


async def test_whenever_the_keeper_is_killed_nothing_runs_twice(commands: of_commands.Commands) -> None:
    """At a random moment of a start; asked again until there is an answer that stays."""
    chance = random.Random(4711)
    lines = commands.machine.home / "lines"
    answers = []
    for number in range(12):
        await commands.start(f"warm{number}", "true", background=False)
        victim = commands.keeper_pid
        asyncio.get_running_loop().call_later(chance.uniform(0, 0.006), os.kill, victim, signal.SIGKILL)
        for _ in range(20):
            try:
                now = await commands.sh(f"c{number}", f"echo {number} >> lines", background=False)
                answers.append(now.state)
                break
            except errors.OutcomeUnknown:
                answers.append("unknown")
                break
            except errors.KeeperLost:
                continue
        await processes.until(lambda pid=victim: not processes.is_running(pid))  # type: ignore[misc]
    ran = lines.read_text().split() if lines.exists() else []

    assert len(answers) == 12
    assert set(answers) <= {"ended", "running", "unknown"}
    assert len(ran) == len(set(ran))


async def test_the_end_of_the_supervisor_is_the_end_of_everything(commands: of_commands.Commands) -> None:
    started = await commands.sh("c1", "trap '' HUP TERM; sleep 60 & wait")
    keeper, daemon = commands.keeper_pid, commands.machine.state()["pid"]
    commands.supervisor.kill()
    await processes.until(lambda: not any(processes.is_running(pid) for pid in (keeper, daemon, started.pid)))

    assert not processes.is_running(started.pid)


async def test_orphans_by_the_thousand_leave_no_zombie_and_take_no_exit_code(
    commands: of_commands.Commands,
) -> None:
    script = "for i in $(seq 1000); do (sh -c 'exit 1' &) ; done; exit 6"
    await commands.sh("c1", script)
    ended = await commands.ended("c1")
    await processes.until(
        lambda: (
            not any(
                machines.zombies_of(pid)
                for pid in (commands.supervisor.pid, commands.keeper_pid, commands.machine.state()["pid"])
            )
        )
    )

    assert (ended.exit_code, ended.lost) == (6, False)
