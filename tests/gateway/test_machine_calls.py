"""Calls that a machine answers: passed on as they are, refused with the reason when it cannot be asked."""

import asyncio
import time

import pytest

from paddock.bus import lifecycle
from paddock.contracts import errors, ids, phases
from paddock.contracts.api import machines
from paddock.store import machines as stored
from paddock.store import sandboxes
from tests.gateway import box, door, relay

Phase = phases.Phase


@pytest.fixture
async def machine(gateway: door.Door) -> str:
    return await gateway.machine_in(Phase.ACTIVE)


async def test_a_command_is_passed_on_and_its_exit_code_is_a_result(gateway: door.Door, machine: str) -> None:
    async with box.Box().serving(gateway, machine) as daemon:
        ended = await gateway.call(
            "machine.exec",
            machineId=machine,
            command=["git", "log"],
            cwd="~/src",
            env={"A": "1"},
            timeoutS=5,
            stdin="x",
        )

    assert (ended["exitCode"], ended["stdout"], ended["timedOut"], ended["signal"]) == (
        3,
        "git log",
        False,
        None,
    )
    [asked] = daemon.asked
    assert (asked.cwd, asked.env, asked.timeout_s, asked.stdin) == ("~/src", {"A": "1"}, 5.0, "x")


async def test_the_callers_call_id_goes_to_the_machine_and_others_are_made(
    gateway: door.Door, machine: str
) -> None:
    async with box.Box().serving(gateway, machine) as daemon:
        await gateway.call("machine.exec", machineId=machine, command=["true"], callId="mine-1")
        await gateway.call("machine.exec", machineId=machine, command=["true"])
        await gateway.call("machine.exec", machineId=machine, command=["true"])

    assert daemon.call_ids[0] == "mine-1"
    assert len(set(daemon.call_ids)) == 3


async def test_a_file_is_written_and_read(gateway: door.Door, machine: str) -> None:
    async with box.Box().serving(gateway, machine):
        written = await gateway.call("machine.writeFile", machineId=machine, path="~/a", content="héllo")
        read = await gateway.call("machine.readFile", machineId=machine, path="~/a")
        empty = await gateway.call("machine.readFile", machineId=machine, path="~/a", length=0)

    assert (read["content"], read["size"], read["sha256"]) == ("héllo", 5, written["sha256"])
    assert (empty["content"], empty["sha256"]) == ("", written["sha256"])


async def test_a_large_file_comes_whole_and_a_larger_one_is_read_in_parts(
    gateway: door.Door, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "READ_MAX_BYTES", 2_000_000)
    async with box.Box().serving(gateway, machine) as daemon:
        daemon.content = "x" * 2_000_000
        whole = await gateway.call("machine.readFile", machineId=machine, path="~/a")
        daemon.content += "y"
        refused = await gateway.refused("machine.readFile", machineId=machine, path="~/a")
        rest = await gateway.call("machine.readFile", machineId=machine, path="~/a", offset=1_999_999)

    assert len(whole["content"]) == 2_000_000
    assert refused["data"]["kind"] == "payload_too_large"
    assert rest["content"] == "xy"


REFUSALS = (
    errors.CommandNotFound("cannot run nope: there is no such command"),
    errors.PermissionDenied(),
    errors.IsADirectory(),
    errors.DiskFull("cannot write ~/a: disk full"),
    errors.CallConflict(),
    errors.OutcomeUnknown(),
)


async def test_what_the_machine_refuses_arrives_as_it_said_it(gateway: door.Door, machine: str) -> None:
    async with box.Box().serving(gateway, machine) as daemon:
        for daemon.refuses in REFUSALS:
            refused = await gateway.refused("machine.exec", machineId=machine, command=["nope"])

            assert (refused["code"], refused["message"]) == (daemon.refuses.code, daemon.refuses.message)
            assert refused["data"]["kind"] == daemon.refuses.kind


async def test_a_machine_without_its_daemon_is_offline_at_once(gateway: door.Door, machine: str) -> None:
    began = time.monotonic()

    refused = await gateway.refused("machine.exec", machineId=machine, command=["true"])

    assert (refused["data"]["kind"], refused["data"]["lastSeenAt"]) == ("machine_offline", None)
    assert time.monotonic() - began < 2


async def test_an_offline_machine_says_when_it_was_last_heard(gateway: door.Door, machine: str) -> None:
    await gateway.context.presence.beat({ids.SandboxId(f"{machine}-1"): 1_700_000_000_000})

    refused = await gateway.refused("machine.exec", machineId=machine, command=["true"])
    shown = await gateway.call("machine.get", machineId=machine)
    gateway.ground.redis.stop()
    without_redis = await gateway.call("machine.get", machineId=machine)

    assert refused["data"]["lastSeenAt"] == shown["lastSeenAt"] == "2023-11-14T22:13:20.000Z"
    assert without_redis["lastSeenAt"] is None


PHASES = {
    Phase.CREATED: "machine_not_ready",
    Phase.SETTING_UP: "machine_not_ready",
    Phase.FAILED: "wrong_phase",
    Phase.DELETING: "machine_gone",
}


async def test_a_machine_in_another_phase_is_not_asked(gateway: door.Door) -> None:
    for phase, kind in PHASES.items():
        machine = await gateway.machine_in(phase)
        async with box.Box().serving(gateway, machine) as daemon:
            refused = await gateway.refused("machine.exec", machineId=machine, command=["true"])

        assert (refused["data"]["kind"], refused["data"]["phase"]) == (kind, phase)
        assert daemon.asked == []


async def test_a_machine_deleted_a_moment_ago_is_no_longer_asked(gateway: door.Door, machine: str) -> None:
    async with box.Box().serving(gateway, machine):
        before = await gateway.call("machine.exec", machineId=machine, command=["true"])
        await gateway.call("machine.delete", machineId=machine)
        after = await gateway.refused("machine.exec", machineId=machine, command=["true"])

    assert before["exitCode"] == 3
    assert after["data"]["kind"] == "machine_gone"


async def test_an_event_of_the_machine_ends_what_is_remembered_of_it(
    gateway: door.Door, machine: str
) -> None:
    """The change is made by another process, so only its event can tell."""
    async with box.Box().serving(gateway, machine):
        await relay.send_all(gateway.ground)
        async with gateway.socket() as socket:
            await socket.call("events.subscribe", machineId=machine, types=["machine.delete-requested"])
            await gateway.call("machine.exec", machineId=machine, command=["true"])
            async with gateway.ground.store.write() as tx:
                await stored.move(tx, machine, phases.DELETE)
            await relay.send_all(gateway.ground)
            await socket.next()
        refused = await gateway.refused("machine.exec", machineId=machine, command=["true"])

    assert refused["data"]["kind"] == "machine_gone"


async def test_a_new_generation_is_asked_and_the_old_one_never_again(
    gateway: door.Door, machine: str
) -> None:
    async with box.Box().serving(gateway, machine) as old, box.Box().serving(gateway, machine, 2) as new:
        async with gateway.ground.store.write() as tx:
            await stored.move(tx, machine, phases.RECREATE, next_generation=True)
            for way in (phases.CLAIM, phases.BOOT, phases.SET_UP, phases.PROBE, phases.ACTIVATE):
                await stored.move(tx, machine, way)
        await gateway.call("machine.exec", machineId=machine, command=["true"])

    assert (len(old.asked), len(new.asked)) == (0, 1)


async def test_what_does_not_fit_on_the_bus_is_too_large_and_not_sent(
    gateway: door.Door, machine: str
) -> None:
    async with box.Box().serving(gateway, machine) as daemon:
        status, _ = await gateway.post(
            b'{"jsonrpc":"2.0","id":1,"method":"machine.exec","params":{"machineId":"%s","command":["%s"]}}'
            % (machine.encode(), b'","'.join([b"x" * 100_000] * 11))
        )

    assert (status, daemon.asked) == (413, [])


async def test_a_caller_that_hangs_up_leaves_nothing_waiting(gateway: door.Door, machine: str) -> None:
    async with box.Box().serving(gateway, machine) as daemon:
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(gateway.ask("machine.exec", machineId=machine, command=["hang"]))
            await daemon.hangs.wait()
            waited = gateway.context.caller.in_flight
            call.cancel()
        async with asyncio.timeout(5):
            while gateway.context.caller.in_flight:
                await lifecycle.pause(0.005, asyncio.Event())

    assert waited == 1


async def test_the_boot_log_is_readable_before_the_machine_is_active(gateway: door.Door) -> None:
    machine = await gateway.machine_in(Phase.BOOTING)
    async with gateway.ground.store.write() as tx:
        found = await stored.get(tx, machine)
        await sandboxes.begin(tx, found.id, 1, node="host-7")

    async with box.logs_on(gateway, "host-7", "booting…") as asked:
        logs = await gateway.call("machine.logs", machineId=machine, tailBytes=100)

    assert (logs["text"], logs["sandboxId"]) == ("booting…", f"{machine}-1")
    assert (asked[0].sandbox_id, asked[0].tail_bytes) == (f"{machine}-1", 100)


async def test_a_machine_without_a_sandbox_has_no_log_yet(gateway: door.Door) -> None:
    machine = await gateway.machine_in(Phase.CREATED)

    assert (await gateway.refused("machine.logs", machineId=machine))["data"]["kind"] == "machine_not_ready"
