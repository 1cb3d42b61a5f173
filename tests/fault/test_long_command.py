"""A command of two and a half minutes: no reply is held so long, and the caller sees one answer all the same."""

import asyncio
import pathlib
import time

import pytest

from tests.fault import ground as grounds

pytestmark = pytest.mark.fault

COMMAND_S = 150


async def test_a_command_of_150_seconds_answers_by_long_poll_although_the_bus_and_a_service_die_in_between(
    tmp_path: pathlib.Path,
) -> None:
    async with grounds.opened(tmp_path) as ground:
        (machine,) = await ground.create(1)
        await ground.until_active([machine])
        script = f"echo begun >> ~/runs; sleep {COMMAND_S}; echo done; exit 7"
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(
                ground.client.machines.exec(machine, ["sh", "-c", script], timeout_s=COMMAND_S + 60)
            )
            await asyncio.sleep(40)  # past the first held reply: the command is what takes time here
            await ground.fleet.nats.kill()
            await ground.fleet.restart("prober")
        answer = asked.result()
        runs = await ground.client.machines.exec(machine, ["cat", "runs"])

    assert time.monotonic() - began >= COMMAND_S
    assert (answer.exit_code, answer.stdout) == (7, "done\n")
    assert runs.stdout == "begun\n"
