"""Every request gets one answer, in time or not at all, and nothing that is asked can break the one who answers."""

import asyncio
import json
import logging
from typing import Any

import msgspec
import nats.errors
import pytest
from nats.aio import msg as nats_msg

from paddock.bus import caller, clock, logs, responder
from paddock.contracts import errors, subjects
from tests.support import connections, peers, processes
from tests.support.peers import CALL, ECHO, SLOW, Text, TextBack


async def _raw(client: Any, body: bytes | dict[str, Any], subject: str = CALL) -> dict[str, Any]:
    """The answer to a body that no caller of ours would send."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    message: nats_msg.Msg = await client.request(subject, payload, timeout=5)
    answer: dict[str, Any] = json.loads(message.data)
    return answer


def _request(method: str = "test.echo", **members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": {"text": "a"}, **members}


async def test_a_late_call_is_refused_and_not_carried_out(bus: connections.Connections) -> None:
    gate = peers.Gate()
    gate.is_open.set()
    ahead = clock.ManualClock(clock.SystemClock().now_ms() + 60_000)
    slow = responder.handler(SLOW, gate.work)
    async with peers.machine(bus, slow, machine_clock=ahead), peers.asker(bus) as asks:
        with pytest.raises(errors.LateCall):
            await asks.call(CALL, SLOW, Text(text="late"), timeout_s=5)

    assert gate.entered == []


async def test_clocks_that_differ_by_a_second_do_not_make_a_call_late(bus: connections.Connections) -> None:
    ahead = clock.ManualClock(clock.SystemClock().now_ms() + 1_500)
    async with peers.machine(bus, peers.ECHOES, machine_clock=ahead), peers.asker(bus) as asks:
        answer = await asks.call(CALL, ECHO, Text(text="a"), timeout_s=1.2)

    assert answer.text == "a"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b'{"method":"\xff"}', -32700),
        (b"[]", -32600),
        (b"7", -32600),
        (b'{"jsonrpc":"2.0","id":1}', -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"test.echo"}', -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"test.echo"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"test.none"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"test.echo","params":{"text":7}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"test.echo","params":[]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"test.echo","params":{"text":"a","newer":1}}', -32602),
    ],
)
async def test_what_is_no_good_request_is_answered_with_the_standard_error(
    bus: connections.Connections, body: bytes, code: int
) -> None:
    client = await bus.service("prober")
    async with peers.machine(bus, peers.ECHOES):
        answer = await _raw(client, body)

    assert answer["error"]["code"] == code
    assert "result" not in answer


async def test_the_answer_carries_the_id_of_its_request(bus: connections.Connections) -> None:
    client = await bus.service("prober")
    async with peers.machine(bus, peers.ECHOES):
        answers = [await _raw(client, _request(id=one)) for one in (7, "seven")]

    assert [answer["id"] for answer in answers] == [7, "seven"]
    assert answers[0] == {"jsonrpc": "2.0", "id": 7, "result": {"text": "a"}}


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_bug_is_answered_without_its_text_and_found_in_the_log_by_its_request_id(
    bus: connections.Connections, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    async def breaks(_params: Text, _call: responder.CallContext) -> TextBack:
        raise KeyError("a secret detail")

    def breaks_at_once(_params: Text, _call: responder.CallContext) -> TextBack:
        raise KeyError("a secret detail")

    broken = responder.handler(SLOW, breaks if is_async else breaks_at_once)
    async with peers.machine(bus, broken, peers.ECHOES), peers.asker(bus) as asks:
        with caplog.at_level(logging.ERROR), pytest.raises(errors.Internal) as seen:
            await asks.call(CALL, SLOW, Text(), timeout_s=5)
        answer = await asks.call(CALL, ECHO, Text(text="still here"), timeout_s=5)

    assert "secret" not in seen.value.message + str(seen.value.data)
    record = next(one for one in caplog.records if one.getMessage() == "rpc_failed")
    assert record.facts["request_id"] == seen.value.data["requestId"]  # type: ignore[attr-defined]
    assert record.exc_info is not None
    assert answer.text == "still here"


async def test_a_handler_that_answers_with_what_cannot_be_encoded_is_a_bug_of_its_own(
    bus: connections.Connections,
) -> None:
    async def odd(_params: Text, _call: responder.CallContext) -> Any:
        return object()

    def odd_at_once(_params: Text, _call: responder.CallContext) -> Any:
        return TextBack(text="\udc80")

    handlers = (responder.handler(SLOW, odd), responder.handler(ECHO, odd_at_once))
    async with peers.machine(bus, *handlers), peers.asker(bus) as asks:
        with pytest.raises(errors.Internal):
            await asks.call(CALL, SLOW, Text(), timeout_s=5)
        with pytest.raises(errors.Internal):
            await asks.call(CALL, ECHO, Text(), timeout_s=5)


@pytest.mark.parametrize("reply", ["machine.created.p1.m1", "$JS.API.STREAM.DELETE.EVENTS", "rpc.m2-1.call"])
async def test_nothing_is_done_for_or_sent_to_a_reply_subject_that_is_no_inbox(
    bus: connections.Connections, reply: str
) -> None:
    """A request whose reply subject was chosen by its sender made a service write into the event stream."""
    gate = peers.Gate()
    gate.is_open.set()
    onlooker, serving = await bus.onlooker(), await bus.service("registrar")
    told: list[bytes] = []

    async def hear(message: nats_msg.Msg) -> None:
        told.append(message.data)

    await onlooker.subscribe(reply, cb=hear)
    await onlooker.flush()
    async with asyncio.TaskGroup() as tasks:
        serves = responder.Responder(
            serving,
            subject=subjects.REGISTRAR_CALL,
            handlers=responder.table(responder.handler(SLOW, gate.work)),
            clock=clock.SystemClock(),
            tasks=tasks,
        )
        await serves.start()
        forged = json.dumps(_request("test.slow", params={"text": "forged"})).encode()
        await onlooker.publish(subjects.REGISTRAR_CALL, forged, reply=reply)
        await _raw(onlooker, _request("test.slow", params={"text": "honest"}), subjects.REGISTRAR_CALL)
        await serves.drain(1)

    assert gate.entered == ["honest"]
    assert told == []


async def test_headers_are_not_echoed(bus: connections.Connections) -> None:
    client = await bus.service("prober")
    async with peers.machine(bus, peers.ECHOES):
        body = json.dumps(_request()).encode()
        message = await client.request(CALL, body, timeout=5, headers={"Authorization": "secret"})

    assert message.headers is None


async def test_one_more_than_may_be_in_flight_is_told_so(bus: connections.Connections) -> None:
    gate = peers.Gate()
    slow = responder.handler(SLOW, gate.work)
    async with peers.machine(bus, slow, max_in_flight=2), peers.asker(bus) as asks:
        asking = [asyncio.create_task(asks.call(CALL, SLOW, Text(), timeout_s=5)) for _ in range(2)]
        await gate.until_entered(2)
        with pytest.raises(errors.TooManyInFlight):
            await asks.call(CALL, SLOW, Text(), timeout_s=5)
        gate.is_open.set()
        await asyncio.wait(asking)
        after = await asks.call(CALL, SLOW, Text(text="room again"), timeout_s=5)

    assert [task.exception() for task in asking] == [None, None]
    assert after.text == "room again"


async def test_a_slow_call_does_not_delay_a_quick_one(bus: connections.Connections) -> None:
    gate = peers.Gate()
    slow = responder.handler(SLOW, gate.work)
    async with peers.machine(bus, slow, peers.ECHOES), peers.asker(bus) as asks:
        asking = asyncio.create_task(asks.call(CALL, SLOW, Text(text="slow"), timeout_s=5))
        await gate.until_entered(1)
        quick = await asks.call(CALL, ECHO, Text(text="quick"), timeout_s=5)

        assert quick.text == "quick"
        assert not asking.done()
        gate.is_open.set()
        await asking


async def test_drain_answers_all_that_was_accepted_and_takes_no_more(bus: connections.Connections) -> None:
    gate = peers.Gate()
    slow = responder.handler(SLOW, gate.work)
    async with peers.machine(bus, slow) as machine, peers.asker(bus) as asks:
        asking = [
            asyncio.create_task(asks.call(CALL, SLOW, Text(text=str(one)), timeout_s=10)) for one in range(20)
        ]
        await gate.until_entered(20)
        draining = asyncio.create_task(machine.calls.drain(5))
        await _until_offline(asks)
        gate.is_open.set()
        await draining

        assert [(await task).text for task in asking] == [str(one) for one in range(20)]
        assert machine.calls.in_flight == 0


async def _until_offline(asks: caller.Caller) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                await asks.call(CALL, ECHO, Text(), timeout_s=1)
            except errors.MachineOffline:
                return
            except errors.MethodNotFound:
                await asyncio.sleep(0.005)


async def test_what_is_left_when_the_drain_time_is_over_is_told_and_ends(
    bus: connections.Connections,
) -> None:
    gate = peers.Gate()
    slow = responder.handler(SLOW, gate.work)
    async with peers.machine(bus, slow) as machine, peers.asker(bus) as asks:
        asking = asyncio.create_task(asks.call(CALL, SLOW, Text(text="a"), timeout_s=10))
        await gate.until_entered(1)
        await machine.calls.drain(0.05)
        with pytest.raises(errors.ShuttingDown):
            await asking

    assert gate.ended == ["a"]


async def test_a_call_accepted_at_the_very_end_of_the_drain_is_told_too(bus: connections.Connections) -> None:
    """Cancelled before its task's first step it was never answered, and its handler never awaited."""
    gate, accepted = peers.Gate(), asyncio.Event()

    def accept(params: Text, call: responder.CallContext) -> Any:
        accepted.set()
        return gate.work(params, call)

    async with peers.machine(bus, responder.handler(SLOW, accept)) as machine, peers.asker(bus) as asks:
        asking = asyncio.create_task(asks.call(CALL, SLOW, Text(), timeout_s=5))
        await accepted.wait()
        await machine.calls._abort()
        with pytest.raises(errors.ShuttingDown):
            await asking


async def test_a_call_that_comes_after_the_drain_is_told_and_not_begun(bus: connections.Connections) -> None:
    """Unsubscribing can be cut short, and what comes then was cancelled before its task's first step."""
    gate = peers.Gate()
    slow = responder.handler(SLOW, gate.work)
    async with peers.machine(bus, slow) as machine, peers.asker(bus) as asks:
        await machine.calls._abort()

        with pytest.raises(errors.ShuttingDown):
            await asks.call(CALL, SLOW, Text(), timeout_s=5)

    assert gate.entered == []


async def test_a_drain_without_a_bus_ends_in_time(bus: connections.Connections) -> None:
    gate = peers.Gate()
    slow = responder.handler(SLOW, gate.work)
    async with peers.machine(bus, slow) as machine, peers.asker(bus) as asks:
        asking = asyncio.create_task(asks.call(CALL, SLOW, Text(text="a"), timeout_s=10))
        await gate.until_entered(1)
        await machine.client.close()
        async with asyncio.timeout(3):
            await machine.calls.drain(0.05)
        asking.cancel()

    assert gate.ended == ["a"]


async def test_serve_is_a_loop_that_ends_by_draining(bus: connections.Connections) -> None:
    gate = peers.Gate()
    client = await bus.daemon(peers.S)
    stop = asyncio.Event()

    async def loop() -> None:
        async with asyncio.TaskGroup() as tasks:
            serves = responder.Responder(
                client,
                subject=CALL,
                handlers=responder.table(responder.handler(SLOW, gate.work)),
                clock=clock.SystemClock(),
                tasks=tasks,
            )
            await serves.serve(stop, drain_s=5)

    async with peers.asker(bus) as asks, asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(loop())
        await _until_online(asks)
        asking = tasks.create_task(asks.call(CALL, SLOW, Text(text="a"), timeout_s=10))
        await gate.until_entered(1)
        stop.set()
        await _until_offline(asks)
        gate.is_open.set()
        await serving

    assert asking.result().text == "a"


async def _until_online(asks: caller.Caller) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                await asks.call(CALL, ECHO, Text(), timeout_s=1)
            except errors.MethodNotFound:
                return
            except errors.MachineOffline:
                await asyncio.sleep(0.005)


async def test_two_with_one_queue_share_the_calls(bus: connections.Connections) -> None:
    first, second = peers.Gate(), peers.Gate()
    for gate in (first, second):
        gate.is_open.set()
    async with (
        peers.machine(bus, responder.handler(SLOW, first.work)),
        peers.machine(bus, responder.handler(SLOW, second.work)),
        peers.asker(bus) as asks,
    ):
        for number in range(30):
            await asks.call(CALL, SLOW, Text(text=str(number)), timeout_s=5)

    assert sorted(first.entered + second.entered, key=int) == [str(number) for number in range(30)]


async def test_a_notification_is_carried_out_and_not_answered(bus: connections.Connections) -> None:
    gate = peers.Gate()
    gate.is_open.set()
    client = await bus.service("prober")
    async with peers.machine(bus, responder.handler(SLOW, gate.work)) as machine:
        body = json.dumps({"jsonrpc": "2.0", "method": "test.slow", "params": {"text": "told"}}).encode()
        await client.publish(CALL, body)
        await gate.until_entered(1)
        await processes.until(lambda: machine.calls.in_flight == 0)
        said = machine.client.stats["out_msgs"]

    assert gate.entered == ["told"]
    assert said == 0


async def test_a_stored_answer_goes_out_as_it_was_stored(bus: connections.Connections) -> None:
    async def stored(_params: Text, _call: responder.CallContext) -> msgspec.Raw:
        return msgspec.Raw(b'{"text":"stored","newer":[1]}')

    client = await bus.service("prober")
    async with peers.machine(bus, responder.handler(ECHO, stored)):
        answer = await _raw(client, _request())

    assert answer["result"] == {"text": "stored", "newer": [1]}


async def test_a_handler_knows_who_asks_what_of_whom(bus: connections.Connections) -> None:
    seen: list[responder.CallContext] = []

    async def looks(_params: Text, call: responder.CallContext) -> TextBack:
        seen.append(call)
        return TextBack(text=str(logs.context()["request_id"]))

    async with peers.machine(bus, responder.handler(ECHO, looks)), peers.asker(bus) as asks:
        answer = await asks.call(CALL, ECHO, Text(), timeout_s=5, call_id="c1", traceparent="00-a-b-01")

    call = seen[0]
    assert (call.subject, call.sandbox, call.caller) == (CALL, "m1-1", "prober-x1")
    assert (call.call_id, call.traceparent) == ("c1", "00-a-b-01")
    assert answer.text == call.request_id
    assert logs.context() == {}


async def test_a_plain_handler_is_answered_without_a_task(bus: connections.Connections) -> None:
    in_flight: list[int] = []

    async with peers.asker(bus) as asks:

        def counts(params: Text, _call: responder.CallContext) -> TextBack:
            in_flight.append(machine.calls.in_flight)
            return TextBack(text=params.text)

        async with peers.machine(bus, responder.handler(ECHO, counts)) as machine:
            answer = await asks.call(CALL, ECHO, Text(text="a"), timeout_s=5)

    assert answer.text == "a"
    assert in_flight == [0]


async def test_an_answer_that_cannot_leave_does_not_end_the_responder(bus: connections.Connections) -> None:
    gate = peers.Gate()
    async with (
        peers.machine(bus, responder.handler(SLOW, gate.work), peers.ECHOES) as machine,
        peers.asker(bus) as asks,
    ):
        asking = asyncio.create_task(asks.call(CALL, SLOW, Text(), timeout_s=10))
        await gate.until_entered(1)
        publish = machine.client.publish

        async def fails(*_args: Any, **_options: Any) -> None:
            raise nats.errors.OutboundBufferLimitError

        machine.client.publish = fails
        gate.is_open.set()
        await processes.until(lambda: machine.calls.in_flight == 0)
        machine.client.publish = publish
        asking.cancel()

        assert (await asks.call(CALL, ECHO, Text(text="here"), timeout_s=5)).text == "here"


async def test_a_responder_whose_task_group_ends_says_that_it_is_shutting_down(
    bus: connections.Connections,
) -> None:
    client = await bus.daemon(peers.S)
    async with asyncio.TaskGroup() as over:
        serves = responder.Responder(
            client,
            subject=CALL,
            handlers=responder.table(peers.ECHOES),
            clock=clock.SystemClock(),
            tasks=over,
        )
        await serves.start()
    async with peers.asker(bus) as asks:
        with pytest.raises(errors.ShuttingDown):
            await asks.call(CALL, ECHO, Text(), timeout_s=5)
