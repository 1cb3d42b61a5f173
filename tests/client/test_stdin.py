import asyncio
import random

import pytest

from paddock.client import machine as machine_of
from paddock.client import process, stdin
from paddock.contracts import errors
from tests.support import fake_gateway, fake_tools


def of(gateway: fake_gateway.FakeGateway, running: process.Process) -> fake_tools.FakeExecution:
    return gateway.fleet.executions[running.id]


async def test_stdin_arrives_whole_in_pieces_the_machine_can_take(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    whole = random.Random(2).randbytes(500_001)
    running = await machine.exec.start(["cat"], stdin=True)

    await running.write(whole[:7])
    await running.write(memoryview(whole)[7:], eof=True)

    assert bytes(of(gateway, running).stdin) == whole
    assert of(gateway, running).is_stdin_closed
    assert gateway.names_asked().count("machine.execWrite") == 1 + 4


async def test_stdin_whose_answers_were_lost_is_taken_once(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    whole = random.Random(3).randbytes(600_000)
    running = await machine.exec.start(["cat"], stdin=True)
    gateway.troubles["machine.execWrite"].extend(
        [fake_gateway.CUT_AFTER, fake_gateway.CUT_BEFORE, errors.NoAnswer(), fake_gateway.CUT_AFTER] * 3
    )

    await running.write(whole, eof=True)

    assert bytes(of(gateway, running).stdin) == whole
    assert of(gateway, running).is_stdin_closed


async def test_writing_waits_while_the_command_does_not_read(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stdin, "PAUSE_S", 0.001)
    running = await machine.exec.start(["slow"], stdin=True)
    execution = of(gateway, running)
    execution.takes = 70_000
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        writing = group.create_task(running.write(b"x" * 200_000))
        await execution.until(lambda: len(execution.stdin) == 70_000)
        assert not writing.done()
        execution.takes = None
        execution.change()

    assert bytes(execution.stdin) == b"x" * 200_000


async def test_a_cancelled_write_is_finished_before_what_is_written_next(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stdin, "PAUSE_S", 0.001)
    running = await machine.exec.start(["slow"], stdin=True)
    execution = of(gateway, running)
    execution.takes = 3
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await running.write(b"abcdef")
    execution.takes = None
    await running.write(b"ghi", eof=True)

    assert bytes(execution.stdin) == b"abcdefghi"


async def test_a_command_that_was_found_is_written_to_where_its_stdin_is(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["cat"], stdin=True)
    await running.write(b"first ")

    await machine.exec.get(running.id).write(b"second")

    assert bytes(of(gateway, running).stdin) == b"first second"


async def test_two_writers_are_told_instead_of_losing_bytes_in_silence(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    one = await machine.exec.start(["cat"], stdin=True)
    other = machine.exec.get(one.id)
    await one.write(b"a")
    await other.write(b"bcd")

    with pytest.raises(errors.Conflict, match="somebody else writes"):
        await one.write(b"e")
    await one.write(b"f")

    assert bytes(of(gateway, one).stdin) == b"abcdf"


async def test_stdin_that_is_closed_or_was_never_open_takes_nothing(machine: machine_of.Machine) -> None:
    without = await machine.exec.start(["make"])
    closed = await machine.exec.start(["cat"], stdin=True)
    await closed.close_stdin()

    for running in (without, closed):
        with pytest.raises(errors.StdinClosed):
            await running.write(b"x")
    await closed.close_stdin()


async def test_a_command_that_ended_takes_no_input_signal_or_size(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["cat"], stdin=True)
    of(gateway, running).end()

    with pytest.raises(errors.NotRunning):
        await running.write(b"x")
    with pytest.raises(errors.NotRunning):
        await running.signal("TERM")
    await running.kill()


async def test_a_lost_keeper_is_told_at_once(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["cat"], stdin=True)
    gateway.troubles["machine.execWrite"].extend([errors.KeeperLost() for _ in range(4)])

    with pytest.raises(errors.KeeperLost):
        async with asyncio.timeout(5):
            await running.write(b"x")
