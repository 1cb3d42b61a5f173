"""Whoever asks gets an answer or the reason why not, at once where it can be known."""

import asyncio
import json
from typing import Any

import pytest
from nats.aio import msg as nats_msg

from paddock.bus import caller, clock, responder
from paddock.contracts import daemon, errors, rpc, subjects
from tests.support import connections, nats_server, peers, processes
from tests.support.peers import ACT, BIG, CALL, ECHO, SLOW, Text, TextBack

AT_ONCE_S = 2.0
"""Far less than the time-out the calls below would wait for."""


async def test_a_call_is_answered(bus: connections.Connections) -> None:
    async with peers.machine(bus, peers.ECHOES), peers.asker(bus) as asks:
        answer = await asks.call(CALL, ECHO, Text(text="here — “ü” \x00"), timeout_s=5)

    assert answer == TextBack(text="here — “ü” \x00")


async def test_a_fault_crosses_the_bus_as_what_it_is_and_without_its_detail(
    bus: connections.Connections,
) -> None:
    async def fails(_params: Text, _call: responder.CallContext) -> TextBack:
        raise errors.DiskFull("cannot write /x: disk full", data={"leftBytes": 0}, detail="private")

    async with peers.machine(bus, responder.handler(ECHO, fails)), peers.asker(bus) as asks:
        with pytest.raises(errors.DiskFull) as seen:
            await asks.call(CALL, ECHO, Text(), timeout_s=5)

    assert seen.value.message == "cannot write /x: disk full"
    assert seen.value.data == {"leftBytes": 0}
    assert seen.value.detail == ""


async def _answer_with(bus: connections.Connections, body: bytes) -> None:
    """A machine that answers everything with `body`."""
    client = await bus.daemon(peers.S)

    async def answer(message: nats_msg.Msg) -> None:
        await client.publish(message.reply, body)

    await client.subscribe(CALL, cb=answer)
    await client.flush()


async def test_a_code_of_a_newer_peer_becomes_a_remote_fault_that_keeps_it(
    bus: connections.Connections,
) -> None:
    body = {"jsonrpc": "2.0", "error": {"code": 9876, "message": "new", "data": {"why": 1}, "hint": "newer"}}
    await _answer_with(bus, json.dumps(body).encode())
    async with peers.asker(bus) as asks:
        with pytest.raises(errors.RemoteFault) as seen:
            await asks.call(CALL, ECHO, Text(), timeout_s=5)

    assert seen.value.data == {"code": 9876, "why": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"not json", b"[]", b'"\xff\xfe"', b'{"jsonrpc":"2.0","id":1}', b'{"jsonrpc":"1.0","result":{}}',
        b'{"jsonrpc":"2.0","result":{"text":7}}', b'{"jsonrpc":"2.0","result":null}',
    ],
)  # fmt: skip
async def test_an_answer_that_is_none_is_a_bad_answer(bus: connections.Connections, body: bytes) -> None:
    await _answer_with(bus, body)
    async with peers.asker(bus) as asks:
        with pytest.raises(errors.BadAnswer):
            await asks.call(CALL, ECHO, Text(), timeout_s=5)


async def test_a_machine_that_is_not_there_is_offline_at_once(bus: connections.Connections) -> None:
    async with peers.asker(bus) as asks, asyncio.timeout(AT_ONCE_S):
        with pytest.raises(errors.MachineOffline):
            await asks.call(CALL, ECHO, Text(), timeout_s=60)

        assert asks.in_flight == 0


async def test_a_service_that_is_not_there_does_not_answer_at_once(bus: connections.Connections) -> None:
    client = await bus.service("provisioner", pending_size=0)
    asks = caller.Caller(client, caller_id="provisioner-x1", clock=clock.SystemClock())
    async with asks, asyncio.timeout(AT_ONCE_S):
        with pytest.raises(errors.NoAnswer, match="nobody serves"):
            await asks.call(subjects.REGISTRAR_CALL, ECHO, Text(), timeout_s=60)

    assert bus.refusals == []


async def test_what_is_asked_of_a_bus_that_is_down_fails_at_once_and_is_never_done(
    bus: connections.Connections, server: nats_server.NatsServer
) -> None:
    gate = peers.Gate()
    gate.is_open.set()
    async with peers.machine(bus, responder.handler(SLOW, gate.work)) as machine, peers.asker(bus) as asks:
        server.stop()
        await processes.until(lambda: not machine.client.is_connected)
        async with asyncio.timeout(AT_ONCE_S):
            with pytest.raises(errors.BusDown):
                await _until_bus_down(asks)
        server.start()
        answer = await _as_soon_as_possible(asks, "after")

    assert answer == TextBack(text="after")
    assert gate.entered == ["after"]


async def _until_bus_down(asks: caller.Caller) -> None:
    """Ask until the caller's own connection has noticed too; until then there is nobody to hear it either."""
    while True:
        try:
            await asks.call(CALL, SLOW, Text(text="down"), timeout_s=60)
        except errors.NoAnswer:
            continue


async def _as_soon_as_possible(asks: caller.Caller, text: str) -> TextBack:
    async with asyncio.timeout(5):
        while True:
            try:
                return await asks.call(CALL, SLOW, Text(text=text), timeout_s=5)
            except (errors.BusDown, errors.MachineOffline):
                await asyncio.sleep(0.01)


async def test_what_was_asked_when_the_bus_broke_off_ends_at_once(
    bus: connections.Connections, server: nats_server.NatsServer
) -> None:
    gate = peers.Gate()
    async with peers.machine(bus, responder.handler(SLOW, gate.work)), peers.asker(bus) as asks:
        asking = asyncio.create_task(asks.call(CALL, SLOW, Text(text="a"), timeout_s=60))
        await gate.until_entered(1)
        server.kill()
        await asyncio.wait({asking}, timeout=5)

        assert isinstance(asking.exception(), errors.NoAnswer)
        gate.is_open.set()
        server.start()


async def test_a_silent_machine_does_not_answer_in_time_and_its_late_answer_is_dropped(
    bus: connections.Connections,
) -> None:
    gate = peers.Gate()
    handlers = (responder.handler(SLOW, gate.work), peers.ECHOES)
    async with peers.machine(bus, *handlers), peers.asker(bus) as asks:
        with pytest.raises(errors.NoAnswer, match=r"test\.slow within 0\.1 s"):
            await asks.call(CALL, SLOW, Text(text="late"), timeout_s=0.1)
        gate.is_open.set()
        answer = await asks.call(CALL, ECHO, Text(text="next"), timeout_s=5)

        assert answer.text == "next"
        assert asks.in_flight == 0


async def test_an_oversized_request_is_refused_before_it_is_sent(bus: connections.Connections) -> None:
    async with peers.machine(bus, peers.ECHOES) as machine, peers.asker(bus) as asks:
        with pytest.raises(errors.PayloadTooLarge) as seen:
            await asks.call(CALL, ECHO, Text(text="x" * rpc.REQUEST_BYTES_MAX), timeout_s=5)
        heard = machine.client.stats["in_msgs"]

    assert seen.value.data["limitBytes"] == rpc.REQUEST_BYTES_MAX
    assert heard == 0


async def test_the_largest_request_arrives(bus: connections.Connections) -> None:
    async def measures(params: Text, _call: responder.CallContext) -> TextBack:
        return TextBack(text=str(len(params.text)))

    async with peers.machine(bus, responder.handler(ECHO, measures)), peers.asker(bus) as asks:
        answer = await asks.call(CALL, ECHO, Text(text="x" * (rpc.REQUEST_BYTES_MAX - 400)), timeout_s=5)

    assert answer.text == str(rpc.REQUEST_BYTES_MAX - 400)


async def test_a_cancelled_call_leaves_nothing_behind_and_its_work_goes_on(
    bus: connections.Connections,
) -> None:
    gate = peers.Gate()
    handlers = (responder.handler(SLOW, gate.work), peers.ECHOES)
    async with peers.machine(bus, *handlers) as machine, peers.asker(bus) as asks:
        await asks.call(CALL, ECHO, Text(), timeout_s=5)
        tasks = len(asyncio.all_tasks())
        asking = asyncio.create_task(asks.call(CALL, SLOW, Text(text="a"), timeout_s=60))
        await gate.until_entered(1)
        asking.cancel()
        await asyncio.wait({asking})

        assert asking.cancelled()
        assert asks.in_flight == 0
        assert len(asyncio.all_tasks()) == tasks + machine.calls.in_flight == tasks + 1
        gate.is_open.set()
        await processes.until(lambda: machine.calls.in_flight == 0)


async def test_closing_a_caller_ends_what_it_waits_for(bus: connections.Connections) -> None:
    gate = peers.Gate()
    async with peers.machine(bus, responder.handler(SLOW, gate.work)):
        async with peers.asker(bus) as asks:
            asking = asyncio.create_task(asks.call(CALL, SLOW, Text(text="a"), timeout_s=60))
            await gate.until_entered(1)
        await asyncio.wait({asking}, timeout=5)

        assert isinstance(asking.exception(), errors.ShuttingDown)
        gate.is_open.set()


async def test_a_caller_that_is_closed_asks_no_more(bus: connections.Connections) -> None:
    async with peers.asker(bus) as asks:
        pass
    with pytest.raises(errors.BusDown):
        await asks.call(CALL, ECHO, Text(), timeout_s=5)


@pytest.mark.parametrize("caller_id", ["", "a.b", "*", ">", "a b", "x" * 65])
def test_a_caller_id_that_is_no_token_is_refused(caller_id: str) -> None:
    unconnected: Any = None
    with pytest.raises(ValueError, match="caller id"):
        caller.Caller(unconnected, caller_id=caller_id, clock=clock.SystemClock())


async def test_a_side_effect_always_has_a_call_id_and_a_given_one_is_kept(
    bus: connections.Connections,
) -> None:
    seen: list[str] = []

    async def acts(_params: Text, call: responder.CallContext) -> TextBack:
        seen.append(call.call_id)
        return TextBack()

    handlers = (responder.handler(ACT, acts), responder.handler(ECHO, acts))
    async with peers.machine(bus, *handlers), peers.asker(bus) as asks:
        await asks.call(CALL, ACT, Text(), timeout_s=5)
        await asks.call(CALL, ACT, Text(), timeout_s=5, call_id="1-step-abc-1")
        await asks.call(CALL, ECHO, Text(), timeout_s=5)

    assert len(seen[0]) == 26
    assert seen[1:] == ["1-step-abc-1", ""]


class Commands:
    """A handler of long calls, as the daemon's: the command runs on whoever asks."""

    def __init__(self) -> None:
        self.done: asyncio.Future[TextBack] = asyncio.get_running_loop().create_future()
        self.polls = 0
        self.begun = 0

    async def begin(self, _params: Text, call: responder.CallContext) -> TextBack:
        self.begun += 1
        return await call.hold(self.done)

    async def wait(self, params: daemon.CallParams, call: responder.CallContext) -> Any:
        self.polls += 1
        return await call.hold(self.done, params.call_id)

    def handlers(self) -> tuple[responder.Handler, ...]:
        return responder.handler(ACT, self.begin), responder.handler(daemon.CALL_WAIT, self.wait)


async def test_a_call_longer_than_a_reply_is_held_is_one_await_for_its_caller(
    bus: connections.Connections,
) -> None:
    commands = Commands()
    async with (
        peers.machine(bus, *commands.handlers(), held_reply_s=0.05),
        peers.asker(bus, held_reply_s=0.05) as asks,
    ):
        asking = asyncio.create_task(asks.call(CALL, ACT, Text(), timeout_s=30))
        await processes.until(lambda: commands.polls == 3)
        commands.done.set_result(TextBack(text="finished"))
        answer = await asking

    assert answer == TextBack(text="finished")
    assert commands.begun == 1


async def test_a_large_answer_of_a_long_call_comes_in_chunks(bus: connections.Connections) -> None:
    commands = Commands()
    async with peers.machine(bus, *commands.handlers(), held_reply_s=0.05), peers.asker(bus) as asks:
        asking = asyncio.create_task(asks.call(CALL, ACT, Text(), timeout_s=30))
        await processes.until(lambda: commands.polls == 1)
        commands.done.set_result(TextBack(text="y" * 3_000_000))
        answer = await asking

    assert answer.text == "y" * 3_000_000


async def test_a_fault_that_ends_a_long_call_reaches_its_caller(bus: connections.Connections) -> None:
    commands = Commands()
    async with peers.machine(bus, *commands.handlers(), held_reply_s=0.05), peers.asker(bus) as asks:
        asking = asyncio.create_task(asks.call(CALL, ACT, Text(), timeout_s=30))
        await processes.until(lambda: commands.polls == 1)
        commands.done.set_exception(errors.OutcomeUnknown())
        with pytest.raises(errors.OutcomeUnknown):
            await asking


async def test_a_long_call_outlives_a_broken_connection_of_its_machine(
    bus: connections.Connections,
) -> None:
    commands = Commands()
    async with (
        peers.machine(bus, *commands.handlers(), held_reply_s=0.05) as machine,
        peers.asker(bus, held_reply_s=0.05, reply_grace_s=0.3) as asks,
    ):
        asking = asyncio.create_task(asks.call(CALL, ACT, Text(), timeout_s=60))
        await processes.until(lambda: commands.polls == 1)
        await machine.client.force_reconnect()
        await processes.until(lambda: machine.client.stats["reconnects"] == 1)
        commands.done.set_result(TextBack(text="finished"))

        assert (await asking).text == "finished"
        assert commands.begun == 1


async def test_a_long_call_outlives_a_restart_of_the_bus(
    bus: connections.Connections, server: nats_server.NatsServer
) -> None:
    commands = Commands()
    async with peers.machine(bus, *commands.handlers(), held_reply_s=0.05), peers.asker(bus) as asks:
        asking = asyncio.create_task(asks.call(CALL, ACT, Text(), timeout_s=60))
        await processes.until(lambda: commands.polls == 1)
        server.restart()
        commands.done.set_result(TextBack(text="finished"))

        assert (await asking).text == "finished"


async def test_a_call_still_running_at_the_callers_limit_is_named_and_goes_on(
    bus: connections.Connections,
) -> None:
    commands = Commands()
    async with (
        peers.machine(bus, *commands.handlers(), held_reply_s=0.05),
        peers.asker(bus, held_reply_s=0.05) as asks,
    ):
        with pytest.raises(errors.DeadlineExceeded) as seen:
            await asks.call(CALL, ACT, Text(), timeout_s=1, call_id="c1")

    assert seen.value.data == {"callId": "c1"}
    assert not commands.done.done()


async def test_a_machine_lost_while_its_call_runs_is_offline_when_patience_ends(
    bus: connections.Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller, "LOST_CONTACT_S", 0.1)
    monkeypatch.setattr(caller, "POLL_AGAIN_S", 0.02)
    commands = Commands()
    async with (
        peers.machine(bus, *commands.handlers(), held_reply_s=0.05) as machine,
        peers.asker(bus, held_reply_s=0.05, reply_grace_s=0.1) as asks,
    ):
        asking = asyncio.create_task(asks.call(CALL, ACT, Text(), timeout_s=60))
        await processes.until(lambda: commands.polls == 1)
        await machine.client.close()
        await asyncio.wait({asking}, timeout=5)

        assert isinstance(asking.exception(), errors.MachineOffline)


async def test_many_calls_at_once_each_get_their_own_answer(bus: connections.Connections) -> None:
    async with peers.machine(bus, peers.ECHOES), peers.asker(bus) as asks, asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(asks.call(CALL, ECHO, Text(text=str(number)), timeout_s=10))
            for number in range(200)
        ]

    assert [task.result().text for task in asked] == [str(number) for number in range(200)]


async def test_only_the_machine_that_was_asked_can_send_a_part_of_the_answer(
    bus: connections.Connections,
) -> None:
    """Chunks carry their sender in the subject, which the server guarantees; one of another machine is not taken."""
    other = await bus.daemon("m2-1")
    gate = peers.Gate()
    ids_seen: list[str] = []

    async def big(params: Text, call: responder.CallContext) -> TextBack:
        ids_seen.append(call.request_id)
        await gate.work(params, call)
        return TextBack(text="z" * 700_000)

    async with peers.machine(bus, responder.handler(BIG, big)), peers.asker(bus) as asks:
        asking = asyncio.create_task(asks.call(CALL, BIG, Text(text="a"), timeout_s=10))
        await gate.until_entered(1)
        await other.publish(f"out.m2-1.prober-x1.{ids_seen[0]}", b"\x00\x00\x00\x00forged")
        await other.flush()
        gate.is_open.set()

        assert (await asking).text == "z" * 700_000
