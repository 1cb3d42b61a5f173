import asyncio
import random

import pytest

from paddock.client import machine as machine_of
from paddock.client import process
from paddock.contracts import errors
from paddock.contracts.api import executions
from tests.support import fake_gateway, fake_tools


def of(gateway: fake_gateway.FakeGateway, running: process.Process) -> fake_tools.FakeExecution:
    return gateway.fleet.executions[running.id]


async def test_a_command_is_waited_for_without_reading_its_output(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["make"])
    of(gateway, running).say(b"x" * 10_000_000)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(running.wait())
        await of(gateway, running).until(lambda: of(gateway, running).waits > 0)
        of(gateway, running).end(exit_code=1)

    assert waiting.result().exit_code == 1
    assert "machine.execAttach" not in gateway.names_asked()


async def test_a_wait_whose_answer_does_not_come_ends_with_the_output(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["make"])
    gateway.troubles["machine.execWait"].append(fake_gateway.HANG)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(running.wait())
        reading = group.create_task(running.stdout.read())
        of(gateway, running).say(b"all")
        of(gateway, running).end(exit_code=4)

    assert reading.result() == b"all"
    assert waiting.result().exit_code == 4


async def test_a_wait_with_a_limit_says_that_it_still_runs(machine: machine_of.Machine) -> None:
    running = await machine.exec.start(["sleep"])

    with pytest.raises(errors.DeadlineExceeded, match="still runs"):
        await running.wait(timeout_s=0.05)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await running.wait()


async def test_a_wait_asks_on_when_the_gateway_answers_that_it_runs(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.contracts.api.base.WAIT_MAX_S", 0.01)
    running = await machine.exec.start(["make"])
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(running.wait())
        await of(gateway, running).until(lambda: of(gateway, running).waits > 2)
        of(gateway, running).end()

    assert waiting.result().exit_code == 0


async def test_one_that_could_not_be_started_is_waited_for_no_longer(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["make"])
    failure = executions.ExecFailure(code=5001, message="cannot start make")
    of(gateway, running).end(exit_code=None, state="failed", failure=failure)

    assert (await running.wait()).failure == failure


async def test_signals_and_sizes_arrive(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["vi"], pty=True)
    await running.resize(120, 40)
    await running.signal("INT")
    await running.kill()

    assert of(gateway, running).sizes == [(80, 24), (120, 40)]
    assert of(gateway, running).signals == ["INT", "KILL"]
    with pytest.raises(errors.NotATerminal):
        await (await machine.exec.start(["make"])).resize(1, 1)


async def test_a_signal_whose_answer_was_lost_is_not_sent_again(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["vi"])
    gateway.troubles["machine.execSignal"].append(fake_gateway.CUT_AFTER)

    with pytest.raises(errors.NoAnswer):
        await running.signal("INT")
    assert of(gateway, running).signals == ["INT"]


async def test_parts_and_summaries_of_output_are_read(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["make"])
    whole = random.Random(4).randbytes(700_000)
    of(gateway, running).say(whole)
    of(gateway, running).complain(b"warning " * 100)

    assert await running.read_output("stdout") == whole
    assert await running.read_output("stdout", 5, 600_000) == whole[5:600_005]
    assert await running.read_output("stderr", 792, 99) == b"warning "
    with pytest.raises(errors.BadOffset):
        await running.read_output("stderr", 801)
    summary = await running.summary(limit_bytes=16)
    assert (summary.stderr, summary.stderr_omitted_bytes) == ("warning warning ", 784)


async def test_a_look_says_how_it_is_now(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["make"])
    of(gateway, running).say(b"abc")

    seen = await machine.exec.get(running.id).look()

    assert (seen.state, seen.stdout_bytes) == ("running", 3)
