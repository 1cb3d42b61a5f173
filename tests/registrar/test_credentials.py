"""Credentials: for the current sandbox only, recorded, and good on the bus."""

import pytest

from paddock.bus import caller, clock
from paddock.contracts import errors, phases, services, subjects
from paddock.store import machines, process, sandboxes
from tests.support import house


async def _issue(ground: house.House, machine: machines.Machine, generation: int) -> services.IssueResult:
    """Asked with the provisioner's rights."""
    connection = await ground.bus.service("provisioner", pending_size=0)
    params = services.IssueParams(machine_id=machine.id, generation=generation)
    async with caller.Caller(connection, caller_id="provisioner-test", clock=clock.SystemClock()) as asks:
        return await asks.call(subjects.REGISTRAR_CALL, services.ISSUE_CREDENTIAL, params, timeout_s=5)


async def test_an_issued_credential_connects_and_is_on_record(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    issued = await _issue(ground, machine, 1)

    connection = await ground.bus.connect(machine.sandbox_id, issued.credentials)

    assert connection.is_connected
    async with ground.store.write() as tx:
        assert await sandboxes.revoke(tx, machine.id, up_to_generation=1) == [issued.user_key]


async def test_a_generation_that_is_not_the_current_one_gets_none(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    async with ground.store.write() as tx:
        await machines.move(tx, machine.id, phases.CLAIM)
        await machines.move(tx, machine.id, phases.RECREATE, next_generation=True)

    with pytest.raises(errors.MachineGone):
        await _issue(ground, machine, 1)
