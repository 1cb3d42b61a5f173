"""The daemon as a real process on a real bus: its start, its answers to the registrar, its end."""

import os
import pathlib
import signal

import pytest

from paddock.bus import caller, clock
from paddock.contracts import daemon, errors, rpc, subjects
from paddock.daemon import lock
from tests.daemon import machine as machines
from tests.support import connections, nats_server, processes

CALL = subjects.rpc_call(machines.SANDBOX)
CONTROL = subjects.rpc_control(machines.SANDBOX)


async def sh(
    asking: caller.Caller, script: str, call_id: str = "", **more: float
) -> daemon.ExecCommandResult:
    params = daemon.ExecCommandParams(command=["sh", "-c", script])
    return await asking.call(
        CALL, daemon.EXEC_COMMAND, params, timeout_s=more.get("timeout_s", 20), call_id=call_id
    )


async def test_it_says_ready_with_its_versions_and_then_answers(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    machine.tell(server)
    machine.start("run")
    await processes.until(lambda: registrar.readies)
    pong = await asking.call(CALL, daemon.PING, rpc.Empty(), timeout_s=5)
    version = await asking.call(CONTROL, daemon.GET_VERSION, rpc.Empty(), timeout_s=5)
    await processes.until(lambda: machine.state().get("stateReason") == "ready")

    assert pong.boot_id == registrar.readies[0].boot_id == machine.state()["bootId"]
    assert (version.version, version.wire_version) == ("0.1.0", rpc.WIRE_VERSION)
    assert (registrar.readies[0].daemon_version, registrar.readies[0].wire_version) == ("0.1.0", 1)
    assert registrar.readies[0].last_exit == ""
    assert len(registrar.readies) == 1


async def test_ready_is_repeated_until_ok(
    machine: machines.Machine, server: nats_server.NatsServer, bus: connections.Connections
) -> None:
    machine.tell(server)
    async with machines.Registrar("wait", "wait", "ok").serving(await bus.service("registrar")) as registrar:
        machine.start("run")
        await processes.until(lambda: machine.state().get("stateReason") == "ready")

        assert len(registrar.readies) == 3
        assert len({ready.boot_id for ready in registrar.readies}) == 1
        assert not (machine.folder / "spool/ready.json").exists()


async def test_stop_ends_the_daemon_and_its_sandbox(
    machine: machines.Machine, server: nats_server.NatsServer, bus: connections.Connections
) -> None:
    machine.tell(server)
    async with machines.Registrar("stop").serving(await bus.service("registrar")):
        supervisor = machine.start("supervise")
        code = await machines.ended(supervisor)

    assert code == 0
    assert machine.state()["state"] == "stopped"
    assert machine.state()["stateReason"] == "the control plane says that this sandbox is over"


async def test_a_report_nobody_hears_waits_on_disk_and_is_delivered_later(
    machine: machines.Machine, server: nats_server.NatsServer, bus: connections.Connections
) -> None:
    """The first daemon dies unheard; why it died reaches the registrar with the second one's report."""
    machine.tell(server)
    first = machine.start("run", environ={"PADDOCK_LAST_EXIT": "exit code 9"})
    await processes.until((machine.folder / "spool/ready.json").exists)
    first.kill()
    first.wait()
    async with machines.Registrar().serving(await bus.service("registrar")) as registrar:
        machine.start("run", environ={"PADDOCK_LAST_EXIT": "killed by SIGKILL"})
        await processes.until(lambda: registrar.readies)
        await processes.until(lambda: not (machine.folder / "spool/ready.json").exists())

    assert registrar.readies[0].last_exit == "killed by SIGKILL; before that: exit code 9"


async def test_a_bus_that_is_down_at_boot_is_waited_for(
    machine: machines.Machine, server: nats_server.NatsServer, bus: connections.Connections
) -> None:
    machine.tell(server)
    server.stop()
    (machine.folder / "crontab").write_text("@daily true\n")
    machine.start("run")
    await machine.until_logged("crontab_loaded")
    waiting = machine.state()
    server.start()
    async with machines.Registrar().serving(await bus.service("registrar")) as registrar:
        await processes.until(lambda: registrar.readies)

    assert (waiting["state"], waiting["stateReason"]) == ("running", "waiting for the bus")


async def test_a_bus_that_never_comes_does_not_keep_it_from_stopping(
    machine: machines.Machine, server: nats_server.NatsServer
) -> None:
    machine.tell(server)
    server.stop()
    running = machine.start("run")
    await processes.until(lambda: machine.state().get("state") == "running")
    running.terminate()

    assert await machines.ended(running) == 0
    assert machine.state()["stateReason"] == "asked to stop by a signal"


async def test_it_comes_back_after_the_bus_was_killed(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    machine.tell(server, heartbeatS=0.1)
    machine.start("run")
    await processes.until(lambda: registrar.beats)
    server.kill()
    server.start()
    registrar.beats.clear()
    await processes.until(lambda: registrar.beats)
    result = await sh(asking, "echo back")

    assert result.stdout == "back\n"
    assert len(registrar.readies) == 1


async def test_heartbeats_carry_the_boot_id(
    machine: machines.Machine, server: nats_server.NatsServer, registrar: machines.Registrar
) -> None:
    machine.tell(server, heartbeatS=0.05)
    machine.start("run")
    await processes.until(lambda: len(registrar.beats) >= 3)

    assert {beat.boot_id for beat in registrar.beats} == {registrar.readies[0].boot_id}


async def test_deadlines_are_judged_on_the_control_planes_clock(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    bus: connections.Connections,
    asking: caller.Caller,
) -> None:
    """This host's clock is an hour behind the control plane's, as seen from the machine."""
    machine.tell(server)
    registrar = machines.Registrar(ahead_ms=3_600_000)
    async with registrar.serving(await bus.service("registrar")):
        machine.start("run")
        await processes.until(lambda: machine.state().get("stateReason") == "ready")
    with pytest.raises(errors.LateCall):
        await asking.call(CALL, daemon.PING, rpc.Empty(), timeout_s=5)
    ahead = clock.ManualClock(clock.SystemClock().now_ms() + 3_600_000)
    nc = await bus.service("gateway")
    async with caller.Caller(nc, caller_id="gateway-x1", clock=ahead) as in_time:
        pong = await in_time.call(CALL, daemon.PING, rpc.Empty(), timeout_s=5)

    assert abs(pong.now_ms - ahead.now_ms()) < 5000


async def test_a_graceful_stop_answers_what_is_in_flight(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    machine.tell(server, drainS=5)
    running = machine.start("run")
    await processes.until(lambda: registrar.readies)
    await sh(asking, f"(sleep 0.1; kill -TERM {running.pid}) >/dev/null 2>&1 & true")
    result = await sh(asking, "sleep 0.4; echo finished")

    assert result.stdout == "finished\n"
    assert await machines.ended(running) == 0
    assert (machine.state()["state"], machine.state()["stateReason"]) == (
        "stopped",
        "asked to stop by a signal",
    )


async def test_a_second_daemon_in_the_same_home_is_refused(
    machine: machines.Machine, server: nats_server.NatsServer
) -> None:
    machine.tell(server)
    (machine.folder / "daemon.lock").write_bytes(b"\x00garbage")
    held = lock.take(machine.folder / "daemon.lock")
    second = machine.start("run")
    code = await machines.ended(second)
    os.close(held)

    assert code == 1
    assert f"process {os.getpid()} holds it" in machine.log_lines("cannot_run")[0]["reason"]


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff"])
async def test_a_corrupt_state_is_set_aside_and_the_daemon_runs(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    content: bytes,
) -> None:
    machine.tell(server)
    (machine.folder / "state.json").write_bytes(content)
    machine.start("run")
    await processes.until(lambda: registrar.readies)
    (aside,) = machine.folder.glob("state.json.corrupt-*")

    assert aside.read_bytes() == content
    assert machine.state()["state"] == "running"


async def test_without_its_settings_it_says_what_is_missing(machine: machines.Machine) -> None:
    code = await machines.ended(machine.start("run"))

    assert code == 78
    assert "boot.json: no such file" in machine.log_path.read_text()


async def test_its_log_holds_no_secret(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    machine.tell(server)
    machine.start("run")
    await processes.until(lambda: registrar.readies)
    params = daemon.WriteFileParams(
        path="~/.paddock/.env", content='K="hunter2"\nbroken line hunter2\n', mode=0o600
    )
    await asking.call(CALL, daemon.WRITE_FILE, params, timeout_s=5)
    await sh(asking, "echo $K; no-such-command hunter2")
    credentials = (machine.folder / "bus.creds").read_text().splitlines()
    text = machine.log_path.read_text() + "".join(
        path.read_text()
        for path in (machine.folder / "journal").iterdir()
        if "hunter2" not in path.read_text()
    )

    assert machine.log_lines("env_file_lines_passed_over")[0]["lines"] == [2]
    assert "hunter2" not in text
    assert not any(line in text for line in credentials if len(line) > 40 and "-----" not in line)


def modules_of(pid: int) -> set[str]:
    """Shared objects a process has mapped."""
    lines = pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if "/" in line}


async def test_it_loads_nothing_it_does_not_need(
    machine: machines.Machine, server: nats_server.NatsServer, registrar: machines.Registrar
) -> None:
    machine.tell(server)
    running = machine.start("run")
    await processes.until(lambda: registrar.readies)
    mapped = modules_of(running.pid)

    assert any("msgspec" in path for path in mapped)
    assert not any(
        name in path for path in mapped for name in ("aiohttp", "sqlalchemy", "uvloop", "pydantic")
    )


async def test_a_signal_twice_ends_it_at_once(
    machine: machines.Machine,
    server: nats_server.NatsServer,
    registrar: machines.Registrar,
    asking: caller.Caller,
) -> None:
    machine.tell(server, drainS=60)
    running = machine.start("run")
    await processes.until(lambda: registrar.readies)
    await sh(
        asking,
        f"(sleep 0.1; kill -TERM {running.pid}; sleep 0.1; kill -TERM {running.pid}) >/dev/null 2>&1 &",
    )
    with pytest.raises(errors.NoAnswer):
        await sh(asking, "sleep 5", timeout_s=1)

    assert await machines.ended(running) == 128 + signal.SIGTERM
