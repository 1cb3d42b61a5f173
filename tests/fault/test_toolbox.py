"""Commands and files while everything between a caller and a machine is killed: nothing missed, nothing twice."""

import asyncio
import hashlib
import os
import pathlib
import random
import signal
import time
from collections.abc import Awaitable, Callable

import pytest

from paddock.client import machine as machines
from paddock.contracts import errors
from paddock.provisioner.providers import procs
from tests.fault import ground as grounds

pytestmark = pytest.mark.fault

LINES = 4000
COUNTS = f"""
import sys, time
for number in range({LINES}):
    sys.stdout.write(f"{{number:08d}}\\n" * 20)
    sys.stdout.flush()
    sys.stderr.write(f"e{{number}}\\n")
    sys.stderr.flush()
    time.sleep(0.003)
sys.exit(3)
"""
COUNTED = "".join(f"{number:08d}\n" * 20 for number in range(LINES)).encode()
COUNTED_STDERR = "".join(f"e{number}\n" for number in range(LINES)).encode()
MIB = 1024 * 1024


async def a_machine(ground: grounds.Ground) -> machines.Machine:
    (machine,) = await ground.create(1)
    await ground.until_active([machine])
    return ground.client.machine(machine)


async def kill_and_wait(ground: grounds.Ground, pid: int) -> None:
    """A killed process still takes what comes over its connections until it has been scheduled to die."""
    os.kill(pid, signal.SIGKILL)

    async def is_dead() -> bool:
        return procs.identify(pid) is None

    await ground.until_so(is_dead)


async def kill_the_daemon(ground: grounds.Ground, machine: str) -> None:
    (daemon,) = ground.sandbox(machine).daemons
    await kill_and_wait(ground, daemon)

    async def is_back() -> bool:
        return [pid for pid in ground.sandbox(machine).daemons if pid != daemon] != []

    await ground.until_so(is_back)


@pytest.mark.parametrize("killed", ["gateway", "daemon", "nats"])
async def test_output_is_followed_to_its_end_byte_by_byte_although_something_is_killed_again_and_again(
    tmp_path: pathlib.Path, chance: random.Random, killed: str
) -> None:
    async with grounds.opened(tmp_path) as ground:
        machine = await a_machine(ground)
        process = await machine.exec.start(["python3", "-c", COUNTS])
        said: dict[str, list[bytes]] = {"stdout": [], "stderr": []}

        async def follow() -> None:
            async for piece in process.output():
                assert piece.offset == sum(map(len, said[piece.stream]))
                said[piece.stream].append(piece.data)

        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(follow())
            for _ in range(3):
                await asyncio.sleep(chance.uniform(0.3, 2.0))  # a random moment is what is tested
                match killed:
                    case "gateway":
                        await ground.fleet.restart("gateway")
                    case "nats":
                        await ground.fleet.nats.kill()
                    case _:
                        await kill_the_daemon(ground, machine.id)
            await following
        ended = await process.wait()

    assert (ended.state, ended.exit_code, ended.lost) == ("ended", 3, False)
    assert b"".join(said["stdout"]) == COUNTED
    assert b"".join(said["stderr"]) == COUNTED_STDERR


async def test_a_terminal_and_what_is_typed_into_it_outlive_the_daemon_and_the_gateway(
    tmp_path: pathlib.Path,
) -> None:
    async with grounds.opened(tmp_path) as ground:
        machine = await a_machine(ground)
        process = await machine.exec.start(["sh"], pty=True, stdin=True)
        await process.write(b"stty -echo; PS1=''; marked=kept\n")

        await kill_the_daemon(ground, machine.id)
        await ground.fleet.restart("gateway")
        await process.write(b"echo it is $marked; tty >/dev/null && exit 5\n")
        ended = await process.wait(timeout_s=60)
        said = await process.read_output("stdout")

    assert ended.exit_code == 5
    assert b"it is kept" in said


async def test_a_hundred_megabytes_that_nobody_listened_to_are_read_later_whole(
    tmp_path: pathlib.Path,
) -> None:
    async with grounds.opened(tmp_path) as ground:
        machine = await a_machine(ground)
        script = f"import os\nfor n in range(100): os.write(1, bytes([n]) * {MIB})\n"
        process = await machine.exec.start(["python3", "-c", script])
        ended = await process.wait(timeout_s=120)
        digest = hashlib.sha256()
        async for piece in machine.exec.get(process.id).stdout:
            digest.update(piece)

    expected = hashlib.sha256(b"".join(bytes([n]) * MIB for n in range(100)))
    assert ended.stdout_bytes == 100 * MIB
    assert digest.hexdigest() == expected.hexdigest()


async def test_files_arrive_whole_both_ways_although_gateway_daemon_and_bus_are_killed_meanwhile(
    tmp_path: pathlib.Path, chance: random.Random
) -> None:
    content = chance.randbytes(48 * MIB)
    local, back = tmp_path / "local", tmp_path / "back"
    local.write_bytes(content)

    async with grounds.opened(tmp_path / "data") as ground:
        machine = await a_machine(ground)

        async def disturb(until: asyncio.Event) -> None:
            while not until.is_set():
                await ground.fleet.restart("gateway")
                await kill_the_daemon(ground, machine.id)
                await ground.fleet.nats.kill()
                await ground.fleet.ready()
                await asyncio.sleep(chance.uniform(0.5, 1.5))  # a random moment is what is tested

        for transfer in (
            lambda: machine.files.upload(local, "~/big"),
            lambda: machine.files.download("~/big", back),
        ):
            done = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(disturb(done))
                await _repeated(transfer)
                done.set()
        info = await machine.files.stat("~/big", digest=True)

    assert back.read_bytes() == content
    assert info.sha256 == hashlib.sha256(content).hexdigest()


async def _repeated(transfer: Callable[[], Awaitable[object]]) -> None:
    """As a person would: run it again when it says that trying again can help; it resumes."""
    while True:
        try:
            await transfer()
        except errors.Fault as fault:
            if not fault.retryable:
                raise
        else:
            return


async def test_a_storm_of_the_same_start_is_one_process(tmp_path: pathlib.Path) -> None:
    async with grounds.opened(tmp_path) as ground:
        machine = await a_machine(ground)

        async def start() -> int:
            command = ["sh", "-c", "echo once >> ~/runs; sleep 1"]
            process = await grounds.patiently(lambda: machine.exec.start(command, id="storm"))
            assert process.execution is not None
            return process.execution.pid

        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(start()) for _ in range(100)]
            await ground.fleet.restart("gateway")
        await machine.exec.get("storm").wait(timeout_s=30)
        runs = await machine.files.read("~/runs")
        with pytest.raises(errors.Conflict):
            await machine.exec.start(["true"], id="storm")

    assert len({one.result() for one in asked}) == 1
    assert runs == b"once\n"


async def test_a_machine_that_is_offline_is_said_to_be_in_under_a_second_by_every_tool(
    tmp_path: pathlib.Path,
) -> None:
    async with grounds.opened(tmp_path) as ground:
        machine = await a_machine(ground)
        sandbox = ground.sandbox(machine.id)
        # A supervisor that stands still starts no other daemon, and nothing looks vanished.
        os.kill(sandbox.pid, signal.SIGSTOP)
        await kill_and_wait(ground, sandbox.daemons[0])
        await _until_offline(machine)
        for ask in (
            lambda: machine.exec.start(["true"]),
            lambda: machine.exec.get("x").look(),
            lambda: machine.files.read("/etc/hostname"),
            lambda: machine.files.stat("/"),
            lambda: machine.files.write("~/x", b"x"),
        ):
            began = time.monotonic()
            with pytest.raises(errors.MachineOffline) as refused:
                await ask()
            assert time.monotonic() - began < 3  # a second, and what a busy test machine adds
            assert refused.value.data["lastSeenAt"]
        os.kill(sandbox.pid, signal.SIGCONT)


async def _until_offline(machine: machines.Machine) -> None:
    # What the bus still took for the dead daemon is asked again for half a minute, as over any short absence.
    async with asyncio.timeout(60):
        while True:
            try:
                await machine.files.stat("/")
            except errors.MachineOffline:
                return
