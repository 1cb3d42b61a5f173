"""kill -9 of the daemon and of its supervisor: nothing runs twice, nothing is left, nobody is told a lie."""

import asyncio
import os
import signal

import pytest

from paddock.bus import caller
from paddock.contracts import daemon, errors, rpc, subjects
from tests.daemon import machine as machines
from tests.support import nats_server, processes

CALL = subjects.rpc_call(machines.SANDBOX)


async def sh(asking: caller.Caller, script: str, call_id: str) -> daemon.ExecCommandResult:
    params = daemon.ExecCommandParams(command=["sh", "-c", script])
    return await asking.call(CALL, daemon.EXEC_COMMAND, params, timeout_s=20, call_id=call_id)


async def killed_and_back(
    machine: machines.Machine, supervisor_pid: int, registrar: machines.Registrar
) -> int:
    """kill -9 the daemon; returns when its successor has been heard."""
    before = len(registrar.readies)
    victim = machine.state()["pid"]
    assert machines.parents()[victim] == supervisor_pid
    os.kill(victim, signal.SIGKILL)
    await processes.until(lambda: len(registrar.readies) > before)
    return int(victim)


async def test_a_command_outlives_its_daemon_and_is_never_run_again(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    machine.tell(server)
    supervisor = machine.start("supervise")
    await processes.until(lambda: registrar.readies)
    script = "echo $$ >> began; exec >/dev/null 2>&1; read x < gate; echo end >> ended"
    os.mkfifo(machine.home / "gate")
    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(outcome(asking, script))
        await processes.until(lambda: processes.first_line(machine.home / "began"))
        await killed_and_back(machine, supervisor.pid, registrar)
        pid = int(processes.first_line(machine.home / "began"))
        alive = processes.is_running(pid)
        asked.cancel()  # its daemon is dead; whoever takes the work over asks again
        attached = tasks.create_task(outcome(asking, script))
        await asyncio.to_thread((machine.home / "gate").write_text, "\n")

    assert alive
    assert registrar.readies[-1].last_exit == "killed by SIGKILL"
    assert isinstance(attached.result(), errors.OutcomeUnknown)
    assert processes.first_line(machine.home / "ended") == "end"
    assert len((machine.home / "began").read_text().splitlines()) == 1


async def outcome(asking: caller.Caller, script: str) -> daemon.ExecCommandResult | errors.Fault:
    try:
        return await sh(asking, script, "1-step-d1-1")
    except errors.Fault as fault:
        return fault


async def test_it_works_as_pid_1_of_a_sandbox(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    machine.tell(server)
    inside = machines.in_namespaces()
    outer = machine.start_python("-m", "paddock.daemon", "supervise", "--sandbox", "m1-1", within=inside)
    await processes.until(lambda: registrar.readies)
    async with asyncio.TaskGroup() as tasks:
        unheard = tasks.create_task(sh(asking, "sleep 0.01 & kill -9 $PPID", "c0"))
        await processes.until(lambda: len(registrar.readies) > 1)
        unheard.cancel()  # it has killed whoever would have answered
    result = await sh(asking, "tr '\\0' ' ' < /proc/1/cmdline; cat /proc/[0-9]*/stat | grep -c ') Z '", "c1")
    (inner,) = (pid for pid, parent in machines.parents().items() if parent == outer.pid)
    os.kill(inner, signal.SIGTERM)
    await machines.ended(outer)

    assert result.stdout.endswith("-m paddock.daemon supervise --sandbox m1-1 0\n")


async def test_answers_and_conflicts_survive_a_killed_daemon(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    machine.tell(server)
    supervisor = machine.start("supervise")
    await processes.until(lambda: registrar.readies)
    first = await sh(asking, "echo x >> lines; echo $$; exit 3", "c1")
    await killed_and_back(machine, supervisor.pid, registrar)
    again = await sh(asking, "echo x >> lines; echo $$; exit 3", "c1")
    with pytest.raises(errors.CallConflict):
        await sh(asking, "echo y >> lines", "c1")

    assert again == first
    assert (machine.home / "lines").read_text() == "x\n"


async def test_a_long_command_is_answered_through_long_polls(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    machine.tell(server, heldReplyS=0.1)
    machine.start("supervise")
    await processes.until(lambda: registrar.readies)
    result = await sh(asking, "echo x >> lines; sleep 0.7; echo late", "c1")

    assert result.stdout == "late\n"
    assert (machine.home / "lines").read_text() == "x\n"


async def test_a_large_output_arrives_whole_in_chunks(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    machine.tell(server)
    machine.start("supervise")
    await processes.until(lambda: registrar.readies)
    params = daemon.ExecCommandParams(
        command=["sh", "-c", "yes 0123456789 | head -c 3000000"], output_limit_bytes=4 * 1024 * 1024
    )
    result = await asking.call(CALL, daemon.EXEC_COMMAND, params, timeout_s=20)

    assert result.stdout == ("0123456789\n" * 300_000)[:3_000_000]
    assert result.stdout_omitted_bytes == 0


async def test_cancel_overtakes_the_call_it_ends(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    machine.tell(server)
    machine.start("supervise")
    await processes.until(lambda: registrar.readies)
    control = subjects.rpc_control(machines.SANDBOX)
    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(sh(asking, "echo $$ > began; sleep 60", "c1"))
        await processes.until(lambda: processes.first_line(machine.home / "began"))
        cancelled = await asking.call(
            control, daemon.CALL_CANCEL, daemon.CallParams(call_id="c1"), timeout_s=5
        )

    assert cancelled.was_running
    assert asked.result().signal == "SIGKILL"


async def test_sixty_four_commands_at_once_are_all_answered(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    machine.tell(server)
    machine.start("supervise")
    await processes.until(lambda: registrar.readies)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(sh(asking, f"echo {n}", f"c{n}")) for n in range(64)]

    assert [task.result().stdout for task in asked] == [f"{n}\n" for n in range(64)]


async def test_everything_ends_when_the_supervisor_is_killed(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    """Without a pid namespace the kernel does not do it for us."""
    machine.tell(server)
    supervisor = machine.start("supervise")
    await processes.until(lambda: registrar.readies)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(outcome(asking, "echo $$ > began; sleep 60"))
        await processes.until(lambda: processes.first_line(machine.home / "began"))
        daemon_pid = machine.state()["pid"]
        command_pid = int(processes.first_line(machine.home / "began"))
        supervisor.kill()
        await processes.until(lambda: not processes.is_running(daemon_pid))

    assert not processes.is_running(command_pid)
    assert machine.state()["stateReason"] == "the supervisor is gone"


async def test_a_daemon_told_to_end_under_a_supervisor_is_started_again(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    """Somebody inside the machine may end the daemon; the machine goes on."""
    machine.tell(server)
    machine.start("supervise")
    await processes.until(lambda: registrar.readies)
    os.kill(machine.state()["pid"], signal.SIGTERM)
    await processes.until(lambda: len(registrar.readies) > 1)
    pong = await asking.call(CALL, daemon.PING, rpc.Empty(), timeout_s=5)

    assert pong.boot_id == registrar.readies[1].boot_id
    assert registrar.readies[1].last_exit == "asked to stop by a signal"
