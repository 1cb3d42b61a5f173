"""Each kind of probe against a real daemon."""

import pytest

from paddock.contracts import errors, ids
from paddock.prober import target
from paddock.prober.probes import exec as exec_probe
from paddock.prober.probes import rpc as rpc_probe
from tests.setup_pusher import machine as guests


def of(machine: guests.Machine, boot: str) -> target.Target:
    return target.Target(machine, machine.sandbox(), boot)


async def test_a_ping_of_the_boot_that_said_ready_succeeds(machine: guests.Machine) -> None:
    async with machine.booted() as boot:
        assert await answered(rpc_probe.ask(of(machine, boot), timeout_s=5))


async def test_a_ping_of_another_boot_fails(machine: guests.Machine) -> None:
    async with machine.booted():
        with pytest.raises(errors.ProbeFailed, match="restarted"):
            await rpc_probe.ask(of(machine, ids.new_boot_id()), timeout_s=5)


async def test_a_machine_that_is_offline_fails_at_once(machine: guests.Machine) -> None:
    with pytest.raises(errors.ProbeFailed) as failed:
        await rpc_probe.ask(of(machine, "b1"), timeout_s=60)

    assert failed.value.data == {"kind": "machine_offline"}


async def test_a_command_that_ends_with_0_succeeds_as_often_as_asked(machine: guests.Machine) -> None:
    async with machine.booted() as boot:
        for _ in range(3):
            probe = exec_probe.ask(
                of(machine, boot), command=["sh", "-c", "pwd >> ~/log"], cwd="~", timeout_s=5
            )
            assert await answered(probe)

    assert (machine.home / "log").read_text() == f"{machine.home}\n" * 3


@pytest.mark.parametrize(
    ("script", "says"),
    [("echo sesame >&2; exit 3", "exit code 3"), ("kill -9 $$", "signal"), ("sleep 30", "longer than 0.3 s")],
)
async def test_any_other_end_fails_without_the_commands_words(
    machine: guests.Machine, script: str, says: str
) -> None:
    """The prober does not know the machine's secrets, so it could not hide them."""
    async with machine.booted() as boot:
        with pytest.raises(errors.ProbeFailed, match=says) as failed:
            await exec_probe.ask(of(machine, boot), command=["sh", "-c", script], cwd="~", timeout_s=0.3)

    assert "sesame" not in f"{failed.value.message}{failed.value.data}"


async def test_a_command_that_does_not_exist_fails_and_is_named(machine: guests.Machine) -> None:
    async with machine.booted() as boot:
        with pytest.raises(errors.ProbeFailed, match="no such command") as failed:
            await exec_probe.ask(of(machine, boot), command=["no-such-program"], cwd="~", timeout_s=5)

    assert failed.value.data == {"kind": "command_not_found"}


async def answered(probe: object) -> bool:
    """A probe that succeeds says nothing; it raises when it fails."""
    await probe  # type: ignore[misc]
    return True
