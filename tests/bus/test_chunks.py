"""A large answer arrives whole or not at all, and delays nobody else."""

import asyncio
import hashlib
import json
from typing import Any

import msgspec
import pytest
from nats.aio import msg as nats_msg

from paddock.bus import chunks, clock, responder
from paddock.contracts import errors, ids, rpc, subjects
from tests.support import connections, jumploop, peers, processes
from tests.support.peers import BIG, CALL, ECHO, S, Text, TextBack

TEN_MB = 10_000_000
MEBIBYTE = 1024 * 1024


def _varied(size: int) -> str:
    """Text in which no two chunks are alike."""
    return "".join(f"{number:09d} " for number in range(-(-size // 10)))[:size]


async def test_ten_megabytes_arrive_as_they_were_sent_while_other_calls_stay_quick(
    bus: connections.Connections,
) -> None:
    body = _varied(TEN_MB)
    quick = 0
    big = peers.answers(BIG, lambda: body)
    async with peers.machine(bus, big, peers.ECHOES) as machine, peers.asker(bus) as asks:
        asking = asyncio.create_task(asks.call(CALL, BIG, Text(), timeout_s=30))
        while not asking.done():
            await asks.call(CALL, ECHO, Text(text="quick"), timeout_s=5)
            quick += machine.calls.open_streams
        answer = await asking

    assert hashlib.sha256(answer.text.encode()).digest() == hashlib.sha256(body.encode()).digest()
    # Without a window the whole answer would be ahead of the first of them.
    assert quick >= 5


async def test_large_answers_of_one_machine_to_many_calls_do_not_mix(bus: connections.Connections) -> None:
    async def doubled(params: Text, _call: responder.CallContext) -> TextBack:
        return TextBack(text=params.text * 100_000)

    machine = peers.machine(bus, responder.handler(BIG, doubled))
    async with machine, peers.asker(bus) as asks, asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(asks.call(CALL, BIG, Text(text=f"{one:08d}"), timeout_s=20)) for one in range(8)
        ]

    assert [task.result().text[:8] for task in asked] == [f"{one:08d}" for one in range(8)]
    assert all(len(task.result().text) == 800_000 for task in asked)


class Receiver:
    """A caller of its own making, which gives credit only when told."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.chunks: list[bytes] = []
        self.announced: dict[str, Any] = {}

    async def ask(self) -> None:
        async def keep(message: nats_msg.Msg) -> None:
            self.chunks.append(message.data)

        await self._client.subscribe(subjects.out_for("gateway-r1"), cb=keep)
        request = {"jsonrpc": "2.0", "id": "r1", "method": "test.big", "params": {}, "caller": "gateway-r1"}
        message = await self._client.request(CALL, json.dumps(request).encode(), timeout=5)
        self.announced = json.loads(message.data)["stream"]

    async def credit(self, received: int, *, stop: bool = False) -> None:
        params = rpc.CreditParams(caller="gateway-r1", request_id="r1", received=received, stop=stop)
        body = rpc.Request(method=rpc.CREDIT.name, params=msgspec.Raw(msgspec.json.encode(params)))
        await self._client.publish(subjects.rpc_control(S), msgspec.json.encode(body))

    async def until(self, count: int) -> None:
        await processes.until(lambda: len(self.chunks) >= count)


async def test_a_slow_receiver_slows_only_its_own_answer(bus: connections.Connections) -> None:
    body = _varied(2 * MEBIBYTE)
    slow = Receiver(await bus.service("gateway"))
    async with peers.machine(bus, peers.answers(BIG, lambda: body)), peers.asker(bus) as asks:
        await slow.ask()
        await slow.until(rpc.CHUNK_WINDOW)
        fast = await asks.call(CALL, BIG, Text(), timeout_s=20)

        assert fast.text == body
        assert len(slow.chunks) == rpc.CHUNK_WINDOW
        for received in range(1, slow.announced["chunks"] + 1):
            await slow.credit(received)
            await slow.until(min(received + rpc.CHUNK_WINDOW, slow.announced["chunks"]))

    result = b"".join(chunk[4:] for chunk in slow.chunks)
    assert json.loads(result)["text"] == body
    assert hashlib.sha256(result).hexdigest() == slow.announced["sha256"]


async def test_a_receiver_that_disappears_frees_the_responder(bus: connections.Connections) -> None:
    gone = Receiver(await bus.service("gateway"))
    big = peers.answers(BIG, lambda: _varied(2 * MEBIBYTE))
    async with peers.machine(bus, big, credit_s=0.1, max_in_flight=1) as machine, peers.asker(bus) as asks:
        await gone.ask()
        await processes.until(lambda: machine.calls.in_flight == 0)
        after = await asks.call(CALL, BIG, Text(), timeout_s=20)

        assert machine.calls.open_streams == 0
        assert len(after.text) == 2 * MEBIBYTE


async def test_a_receiver_that_wants_no_more_gets_no_more(bus: connections.Connections) -> None:
    full = Receiver(await bus.service("gateway"))
    async with peers.machine(bus, peers.answers(BIG, lambda: _varied(2 * MEBIBYTE))) as machine:
        await full.ask()
        await full.until(rpc.CHUNK_WINDOW)
        await full.credit(1, stop=True)
        await processes.until(lambda: machine.calls.in_flight == 0)

    assert len(full.chunks) == rpc.CHUNK_WINDOW


async def test_a_cancelled_call_stops_its_answer_at_once(bus: connections.Connections) -> None:
    big = peers.answers(BIG, lambda: "z" * 40 * MEBIBYTE)
    async with peers.machine(bus, big, credit_s=60) as machine, peers.asker(bus) as asks:
        asking = asyncio.create_task(asks.call(CALL, BIG, Text(), timeout_s=60))
        await processes.until(lambda: machine.calls.open_streams == 1)
        asking.cancel()
        await processes.until(lambda: machine.calls.in_flight == 0)

        assert asking.cancelled()
        assert asks.in_flight == 0


async def test_an_answer_larger_than_the_caller_takes_is_refused_and_stopped(
    bus: connections.Connections,
) -> None:
    big = peers.answers(BIG, lambda: _varied(3 * MEBIBYTE))
    async with (
        peers.machine(bus, big, credit_s=60) as machine,
        peers.asker(bus, answer_bytes_max=2 * MEBIBYTE) as asks,
    ):
        with pytest.raises(errors.PayloadTooLarge):
            await asks.call(CALL, BIG, Text(), timeout_s=5)
        await processes.until(lambda: machine.calls.in_flight == 0)

        assert asks.in_flight == 0


async def test_a_machine_lost_while_it_answers_is_no_answer(bus: connections.Connections) -> None:
    big = peers.answers(BIG, lambda: "z" * 40 * MEBIBYTE)
    async with peers.machine(bus, big) as machine, peers.asker(bus) as asks:
        asking = asyncio.create_task(asks.call(CALL, BIG, Text(), timeout_s=1))
        await processes.until(lambda: machine.calls.open_streams == 1)
        await machine.client.close()
        await asyncio.wait({asking}, timeout=10)

        assert isinstance(asking.exception(), errors.NoAnswer)


async def test_an_answer_too_large_for_a_reply_is_refused_where_no_chunks_can_go(
    bus: connections.Connections,
) -> None:
    asking, serving = await bus.onlooker(), await bus.service("registrar")
    async with asyncio.TaskGroup() as tasks:
        serves = responder.Responder(
            serving,
            subject=subjects.REGISTRAR_CALL,
            handlers=responder.table(peers.answers(BIG, lambda: "x" * rpc.REPLY_BYTES_MAX)),
            clock=clock.SystemClock(),
            tasks=tasks,
        )
        await serves.start()
        body = b'{"jsonrpc":"2.0","id":1,"method":"test.big","params":{},"caller":"a"}'
        message = await asking.request(subjects.REGISTRAR_CALL, body, timeout=5)
        await serves.drain(1)

    assert json.loads(message.data)["error"]["code"] == errors.PayloadTooLarge.code


@pytest.mark.parametrize("caller", ["", "a.b", "*", ">", "a b"])
async def test_a_caller_that_is_no_token_is_sent_no_chunks(bus: connections.Connections, caller: str) -> None:
    client = await bus.service("prober")
    async with peers.machine(bus, peers.answers(BIG, lambda: "x" * rpc.REPLY_BYTES_MAX)):
        request = {"jsonrpc": "2.0", "id": "r1", "method": "test.big", "params": {}, "caller": caller}
        message = await client.request(CALL, json.dumps(request).encode(), timeout=5)

    assert json.loads(message.data)["error"]["code"] == errors.PayloadTooLarge.code


async def test_a_plain_handlers_large_answer_does_not_stop_the_subscription(
    bus: connections.Connections,
) -> None:
    def big(_params: Text, _call: responder.CallContext) -> TextBack:
        return TextBack(text="x" * MEBIBYTE)

    gone = Receiver(await bus.service("gateway"))
    handlers = (responder.handler(BIG, big), peers.ECHOES)
    async with peers.machine(bus, *handlers, credit_s=60) as machine, peers.asker(bus) as asks:
        await gone.ask()
        answer = await asks.call(CALL, ECHO, Text(text="quick"), timeout_s=5)

        assert answer.text == "quick"
        assert machine.calls.open_streams == 1
        await gone.credit(0, stop=True)


def _chunk(index: int, data: bytes) -> bytes:
    return index.to_bytes(4, "big") + data


def _incoming(body: bytes, *, limit_bytes: int = MEBIBYTE) -> chunks.Incoming:
    incoming = chunks.Incoming(limit_bytes)
    count = -(-len(body) // rpc.CHUNK_BYTES)
    digest = hashlib.sha256(body).hexdigest()
    incoming.expect(rpc.Stream(size_bytes=len(body), chunks=count, sha256=digest))
    return incoming


async def _whole(incoming: chunks.Incoming) -> bytes:
    return await incoming.whole(asyncio.get_running_loop().time() + 1)


async def test_chunks_that_come_before_their_announcement_are_kept() -> None:
    body = b"a" * rpc.CHUNK_BYTES + b"b"
    incoming = chunks.Incoming(MEBIBYTE)
    for index, piece in enumerate(chunks.pieces(body)):
        incoming.add(_chunk(index, bytes(piece)))
    incoming.expect(await chunks.announce(body))

    assert await _whole(incoming) == body


async def test_a_repeated_chunk_is_passed_over() -> None:
    body = b"a" * rpc.CHUNK_BYTES + b"b"
    incoming = _incoming(body)
    for chunk in (_chunk(0, body[: rpc.CHUNK_BYTES]), _chunk(0, b"again"), _chunk(1, b"b")):
        incoming.add(chunk)

    assert await _whole(incoming) == body


async def test_a_lost_chunk_is_no_answer() -> None:
    incoming = _incoming(b"a" * (3 * rpc.CHUNK_BYTES))
    incoming.add(_chunk(0, b"a" * rpc.CHUNK_BYTES))
    incoming.add(_chunk(2, b"a" * rpc.CHUNK_BYTES))

    with pytest.raises(errors.NoAnswer, match="broke off"):
        await _whole(incoming)


def test_a_sender_that_falls_silent_is_no_answer_long_before_the_calls_limit() -> None:
    async def main() -> int:
        incoming = _incoming(b"a" * (2 * rpc.CHUNK_BYTES))
        incoming.add(_chunk(0, b"a" * rpc.CHUNK_BYTES))
        began = jumploop.seconds()
        with pytest.raises(errors.NoAnswer, match="broke off"):
            await incoming.whole(asyncio.get_running_loop().time() + 3600)
        return jumploop.seconds() - began

    assert jumploop.run(main()) == chunks.SILENCE_S


async def test_a_changed_chunk_is_a_bad_answer() -> None:
    incoming = _incoming(b"a" * 100)
    incoming.add(_chunk(0, b"b" * 100))

    with pytest.raises(errors.BadAnswer, match="digest"):
        await _whole(incoming)


@pytest.mark.parametrize("size", [rpc.CHUNK_BYTES + 1, 10 * rpc.CHUNK_BYTES])
async def test_a_chunk_larger_than_a_chunk_is_a_bad_answer(size: int) -> None:
    incoming = _incoming(b"a" * (2 * rpc.CHUNK_BYTES))
    incoming.add(_chunk(0, b"a" * size))

    with pytest.raises(errors.BadAnswer, match="more arrived"):
        await _whole(incoming)


async def test_more_than_a_window_unannounced_is_a_bad_answer() -> None:
    incoming = chunks.Incoming(MEBIBYTE)
    for index in range(rpc.CHUNK_WINDOW + 1):
        incoming.add(_chunk(index, b"a" * rpc.CHUNK_BYTES))

    with pytest.raises(errors.BadAnswer, match="more arrived"):
        await _whole(incoming)


@pytest.mark.parametrize(("size", "count"), [(100, 0), (100, 2), (-1, 0), (0, 5), (0, 0)])
async def test_an_announcement_that_contradicts_itself_is_a_bad_answer(size: int, count: int) -> None:
    incoming = chunks.Incoming(MEBIBYTE)
    incoming.expect(rpc.Stream(size_bytes=size, chunks=count, sha256="0"))

    with pytest.raises(errors.BadAnswer):
        await _whole(incoming)


async def test_credit_for_a_stream_that_is_over_is_passed_over(bus: connections.Connections) -> None:
    sender = chunks.ChunkSender(await bus.daemon(S))
    sender.credit(rpc.CreditParams(caller="nobody", request_id="none", received=5))

    assert sender.open_streams == 0


async def test_another_callers_credit_moves_nothing(bus: connections.Connections) -> None:
    sender = chunks.ChunkSender(await bus.daemon(S), credit_s=0.05)
    sending = asyncio.create_task(
        sender.send(subjects.out(ids.SandboxId(S), "a", "r"), ("a", "r"), b"x" * MEBIBYTE)
    )
    await asyncio.sleep(0)
    sender.credit(rpc.CreditParams(caller="b", request_id="r", received=8))

    with pytest.raises(chunks.ReceiverGoneError):
        await sending
    assert sender.open_streams == 0
