import asyncio
import gc
import random

import pytest

from paddock.client import client as gateway_client
from paddock.client import machine as machine_of
from paddock.client import output_feed, patience, process
from paddock.contracts import errors
from tests.support import cutting_proxy, fake_gateway, fake_tools


def of(gateway: fake_gateway.FakeGateway, running: process.Process) -> fake_tools.FakeExecution:
    return gateway.fleet.executions[running.id]


async def waited_for(execution: fake_tools.FakeExecution) -> None:
    await execution.until(lambda: execution.waits > 0)


async def both(running: process.Process) -> tuple[bytes, bytes]:
    """Stdout and stderr, each over its own link."""
    async with asyncio.TaskGroup() as group:
        reading = [group.create_task(output.read()) for output in (running.stdout, running.stderr)]
    return reading[0].result(), reading[1].result()


async def everything(output: output_feed.Output) -> bytes:
    async with asyncio.timeout(20):
        return await output.read()


async def test_output_comes_while_the_command_runs_and_ends_with_it(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["make"])
    of(gateway, running).say(b"one\n")
    async with asyncio.timeout(5):
        first = await anext(running.stdout)
        of(gateway, running).say(b"two\n")
        second = await anext(running.stdout)
        of(gateway, running).end(exit_code=3)
        rest = [chunk async for chunk in running.stdout]

    assert (first, second, rest) == (b"one\n", b"two\n", [])
    assert (await running.wait()).exit_code == 3


async def test_stdout_and_stderr_are_read_at_the_same_time(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["make"])
    of(gateway, running).say(b"o" * 3_000_000)
    of(gateway, running).complain(b"e" * 2_000_000)
    of(gateway, running).end()

    async with asyncio.TaskGroup() as group:
        stdout = group.create_task(everything(running.stdout))
        stderr = group.create_task(everything(running.stderr))

    assert stdout.result() == b"o" * 3_000_000
    assert stderr.result() == b"e" * 2_000_000


async def test_one_stream_is_read_without_the_other_however_much_that_is(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["make"])
    execution = of(gateway, running)
    execution.complain(b"e" * 9_000_000)
    execution.say(b"begin ")
    begin = await anext(running.stdout)
    execution.complain(b"e" * 9_000_000)
    execution.say(b"end")
    execution.end()

    assert begin + await everything(running.stdout) == b"begin end"
    attached = [asked for name, asked in gateway.asked if name == "machine.execAttach"]
    assert [asked.stderr_offset for asked in attached] == [None, 9_000_000]


async def test_merged_output_says_of_which_stream_and_where_each_piece_is(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["make"])
    execution = of(gateway, running)
    async with running.output() as feed, asyncio.timeout(5):
        execution.say(b"out")
        pieces = [await anext(feed)]
        execution.complain(b"err")
        pieces.append(await anext(feed))
        execution.say(b"more")
        execution.end(exit_code=None, signal="SIGKILL")
        pieces += [piece async for piece in feed]

    assert pieces == [
        output_feed.Piece("stdout", 0, b"out"),
        output_feed.Piece("stderr", 0, b"err"),
        output_feed.Piece("stdout", 3, b"more"),
    ]
    assert feed.execution is not None
    assert feed.execution.signal == "SIGKILL"


async def test_output_is_read_from_given_offsets_by_any_number_of_readers(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["make"])
    of(gateway, running).say(b"0123456789")
    of(gateway, running).end()

    for offset in (0, 4, 10):
        pieces = [piece async for piece in machine.exec.get(running.id).output(stdout_offset=offset)]
        assert b"".join(piece.data for piece in pieces) == b"0123456789"[offset:]


@pytest.mark.parametrize("seed", range(4))
async def test_a_link_cut_at_any_byte_loses_and_repeats_nothing(
    far_machine: machine_of.Machine,
    proxy: cutting_proxy.CuttingProxy,
    gateway: fake_gateway.FakeGateway,
    seed: int,
) -> None:
    chance = random.Random(seed)
    gateway.frame_bytes = chance.choice([1000, 40_000, 131_072])
    written = {"stdout": chance.randbytes(2_000_000), "stderr": chance.randbytes(700_000)}
    running = await far_machine.exec.start(["make"])
    execution = of(gateway, running)
    execution.say(written["stdout"])
    execution.complain(written["stderr"])
    execution.end()
    proxy.cuts.extend(chance.choice([300, chance.randrange(1, 400_000)]) for _ in range(10))

    got = {"stdout": bytearray(), "stderr": bytearray()}
    async with asyncio.timeout(20):
        async for piece in running.output():
            assert piece.offset == len(got[piece.stream])
            got[piece.stream] += piece.data

    assert got == written
    assert proxy.cut_count >= 5


async def test_stdout_alone_goes_on_over_cut_links(
    far_machine: machine_of.Machine, proxy: cutting_proxy.CuttingProxy, gateway: fake_gateway.FakeGateway
) -> None:
    whole = random.Random(1).randbytes(3_000_000)
    running = await far_machine.exec.start(["make"])
    of(gateway, running).complain(b"e" * 1_000_000)
    of(gateway, running).say(whole)
    of(gateway, running).end()
    proxy.cuts.extend([500, 300_000, 700_000, 100_001])

    assert await everything(running.stdout) == whole


async def test_a_restarted_gateway_is_survived_by_reading_and_waiting(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["make"])
    of(gateway, running).say(b"before ")
    links: list[bool] = []
    is_cut = asyncio.Event()

    def on_link(is_there: bool) -> None:
        links.append(is_there)
        is_cut.set()

    running.on_link = on_link
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        waiting = group.create_task(running.wait())
        before = await anext(running.stdout)
        await gateway.stop()
        after = group.create_task(everything(running.stdout))
        of(gateway, running).say(b"after")
        of(gateway, running).end(exit_code=5)
        await is_cut.wait()
        await gateway.start()

    assert before + after.result() == b"before after"
    assert waiting.result().exit_code == 5
    assert links.count(False) == links.count(True) >= 1


async def test_a_stream_the_gateway_gave_up_is_opened_again_where_it_was(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["make"])
    execution = of(gateway, running)
    execution.say(b"one ")
    got = [await anext(running.stdout)]
    for fault in (errors.ChannelBroken(), errors.MachineOffline(), errors.ShuttingDown()):
        gateway.end_streams(fault)
        execution.say(b"more ")
        got.append(await anext(running.stdout))
    execution.end()

    assert b"".join(got) + await everything(running.stdout) == b"one more more more "


async def test_reading_can_be_cancelled_and_taken_up_again(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["make"])
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(running.stdout)
    of(gateway, running).say(b"here")
    of(gateway, running).end()

    assert await everything(running.stdout) == b"here"


async def test_a_reader_that_left_goes_on_where_it_was(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["make"])
    async with running:
        of(gateway, running).say(b"one ")
        async for chunk in running.stdout:
            assert chunk == b"one "
            break
    of(gateway, running).say(b"two")
    of(gateway, running).end()

    assert await everything(running.stdout) == b"two"


async def test_who_is_slow_gets_everything_and_holds_nothing_in_memory(
    far_machine: machine_of.Machine, proxy: cutting_proxy.CuttingProxy, gateway: fake_gateway.FakeGateway
) -> None:
    running = await far_machine.exec.start(["yes"])
    of(gateway, running).say(b"y" * 30_000_000)
    of(gateway, running).end()
    got = len(await anext(running.stdout))
    await proxy.is_held_up.wait()
    passed_bytes = proxy.passed_bytes

    async for chunk in running.stdout:
        got += len(chunk)

    assert got == 30_000_000
    assert passed_bytes < 10_000_000  # what the kernel's buffers take, and a megabyte


async def test_what_is_unknown_is_told_at_once(machine: machine_of.Machine) -> None:
    nobody = machine.exec.get("nobody")

    with pytest.raises(errors.NotFound):
        await nobody.wait()
    with pytest.raises(errors.NotFound):
        await anext(nobody.stdout)
    with pytest.raises(errors.NotFound):
        await nobody.write(b"x")


async def test_an_offline_machine_is_told_at_once_and_with_when_it_was_seen(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    fault = errors.MachineOffline(data={"lastSeenAt": "2027-01-15T08:00:00.000Z"})
    gateway.troubles["machine.execAttach"].append(fault)

    with pytest.raises(errors.MachineOffline) as caught:
        await anext(machine.exec.get("one").stdout)

    assert caught.value.data["lastSeenAt"] == "2027-01-15T08:00:00.000Z"
    assert gateway.names_asked() == ["machine.execAttach"]


async def test_output_that_is_no_longer_kept_is_a_fault_that_says_from_where_it_is(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["yes"])
    execution = of(gateway, running)
    execution.say(b"y" * 1000)
    await anext(running.stdout)
    await running.stdout.aclose()
    execution.say(b"z" * 1000)
    execution.kept_from["stdout"] = 1500
    execution.end()

    with pytest.raises(errors.OutputLimit) as caught:
        await anext(running.stdout)
    rest = [piece.data async for piece in running.output(stdout_offset=caught.value.data["firstOffset"])]

    assert b"".join(rest) == b"z" * 500


async def test_limits_of_the_other_stream_are_no_fault_of_this_one(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["make"])
    execution = of(gateway, running)
    execution.complain(b"e" * 1000)
    execution.say(b"before ")
    before = await anext(running.stdout)
    execution.complain(b"e" * 1000)
    execution.kept_from["stderr"] = 1500
    gateway.end_streams(errors.OutputLimit())
    execution.say(b"after")
    execution.end()

    assert before + await everything(running.stdout) == b"before after"
    with pytest.raises(errors.OutputLimit):
        await anext(running.output(stderr_offset=1000))


async def test_a_gateway_that_stays_away_ends_the_patience(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.1)
    running = await machine.exec.start(["make"])
    await gateway.stop()

    with pytest.raises(errors.GatewayUnreachable):
        await anext(running.stdout)
    with pytest.raises(errors.GatewayUnreachable):
        await running.wait()


async def test_a_link_that_breaks_at_once_every_time_ends_the_patience_too(
    far_machine: machine_of.Machine,
    proxy: cutting_proxy.CuttingProxy,
    gateway: fake_gateway.FakeGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.2)
    running = await far_machine.exec.start(["make"])
    of(gateway, running).say(b"x" * 1000)
    proxy.cuts.extend([900] * 1000)

    with pytest.raises(errors.ChannelBroken):
        async with asyncio.timeout(10):
            await anext(running.stdout)


async def test_a_terminal_seen_late_shows_its_end(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    running = await machine.exec.start(["top"], pty=True)
    of(gateway, running).say(b"x" * 1_500_000 + b"y" * 1024 * 1024)
    of(gateway, running).end()

    assert await everything(machine.exec.get(running.id).stdout) == b"y" * 1024 * 1024


async def test_readers_that_were_just_left_end_with_their_client(gateway: fake_gateway.FakeGateway) -> None:
    machine_id = gateway.fleet.add_machine(gateway.fleet.add_project().id).id
    async with gateway_client.Client(gateway.url, gateway.token) as client:
        running = await client.machine(machine_id).exec.start(["make"])
        of(gateway, running).say(b"x")
        async for _ in running.stdout:
            break
        async for _ in running.output():
            break
    del running
    gc.collect()

    async with asyncio.timeout(5):
        await gateway.until_no_links()
    assert gateway.names_asked().count("machine.execAttach") == 2


async def test_any_number_of_commands_is_followed_and_waited_for_at_once(
    machine: machine_of.Machine, gateway: fake_gateway.FakeGateway
) -> None:
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        commands = [await machine.exec.start(["make"]) for _ in range(60)]
        waits = [group.create_task(running.wait()) for running in commands]
        outputs = [group.create_task(both(running)) for running in commands]
        for running in commands:
            await waited_for(of(gateway, running))
        for running in commands:
            of(gateway, running).say(running.id.encode())
            of(gateway, running).end()

    assert all(wait.result().exit_code == 0 for wait in waits)
    assert [output.result() for output in outputs] == [(running.id.encode(), b"") for running in commands]
