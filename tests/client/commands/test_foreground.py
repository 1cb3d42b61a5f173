"""What is told about a command in the foreground when its machine goes; the rest is in test_exec.py."""

import asyncio

from paddock.contracts import errors
from tests.client.commands import person
from tests.support import fake_gateway


async def test_a_machine_that_is_deleted_meanwhile_leaves_nothing_to_come_back_to(
    gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    async with person.on_pipes(gateway, "exec", "--id", "x", machine, "make") as process:
        assert process.stdout is not None
        async with asyncio.timeout(person.WITHIN_S):
            await gateway.fleet.started.wait()
            gateway.fleet.executions["x"].say(b"here")
            assert await process.stdout.read(4) == b"here"
        gateway.end_streams(errors.MachineGone(f"cannot ask machine {machine}: it is deleting"))
        _, remarks = await process.communicate()

    assert process.returncode == 72
    assert remarks.decode().startswith(f"paddock: cannot ask machine {machine}: it is deleting; ")
    assert "may still run" not in remarks.decode()
