"""Raw bytes travel beside a request as they are, and a message that is no request breaks nothing."""

import json
from typing import Any

import pytest

from paddock.bus import blobs, responder
from paddock.contracts import errors, rpc
from tests.support import connections, peers
from tests.support.peers import CALL, ECHO, SLOW, Text, TextBack

EVERY_BYTE = bytes(range(256))


async def _size(params: Text, call: responder.CallContext) -> TextBack:
    return TextBack(text=f"{params.text}:{len(call.blob)}:{call.blob[:256].hex()}")


SIZES = responder.handler(SLOW, _size)


@pytest.mark.parametrize("blob", [b"\x00", b"{}", EVERY_BYTE, EVERY_BYTE * 2048])
async def test_a_blob_arrives_as_it_was_sent(bus: connections.Connections, blob: bytes) -> None:
    async with peers.machine(bus, SIZES), peers.asker(bus) as asks:
        answer = await asks.call(CALL, SLOW, Text(text="a"), timeout_s=5, blob=blob)

    assert answer.text == f"a:{len(blob)}:{blob[:256].hex()}"


async def test_a_call_without_a_blob_has_an_empty_one_and_is_plain_json(bus: connections.Connections) -> None:
    seen: list[bytes] = []
    listens = await bus.daemon("m1-1")

    async def keep(message: Any) -> None:
        seen.append(message.data)

    async with peers.machine(bus, SIZES), peers.asker(bus) as asks:
        await listens.subscribe(CALL, cb=keep)
        await listens.flush()
        answer = await asks.call(CALL, SLOW, Text(text="a"), timeout_s=5)

    assert answer.text == "a:0:"
    assert json.loads(seen[0])["method"] == "test.slow"


async def test_a_blob_over_the_limit_is_refused_before_it_is_sent(bus: connections.Connections) -> None:
    async with peers.machine(bus, SIZES, peers.ECHOES), peers.asker(bus) as asks:
        with pytest.raises(errors.PayloadTooLarge) as seen:
            await asks.call(CALL, SLOW, Text(), timeout_s=5, blob=b"x" * rpc.REQUEST_BYTES_MAX)
        fits = await asks.call(CALL, SLOW, Text(), timeout_s=5, blob=b"x" * (rpc.REQUEST_BYTES_MAX - 500))
        answer = await asks.call(CALL, ECHO, Text(text="still here"), timeout_s=5)

    assert seen.value.data["limitBytes"] == rpc.REQUEST_BYTES_MAX
    assert fits.text.startswith(f":{rpc.REQUEST_BYTES_MAX - 500}:")
    assert answer.text == "still here"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\x00", -32600),
        (b"\x00\x00\x00\x00", -32600),
        (b"\x00\xff\xff\xff\xff{}", -32600),
        (b"\x00\x00\x00\x00\x05{}", -32600),
        (b"\x00\x00\x00\x00\x00blob", -32700),
        (b"\x00\x00\x00\x00\x01{blob", -32700),
        (b"\x00\x00\x00\x00\x02{}blob", -32600),
        (b"\x00\x00\x00\x00\x02\xff\xffblob", -32700),
    ],
)
async def test_a_blob_with_an_unreadable_envelope_is_answered_with_the_standard_error(
    bus: connections.Connections, body: bytes, code: int
) -> None:
    client = await bus.service("prober")
    async with peers.machine(bus, SIZES):
        message = await client.request(CALL, body, timeout=5)

    assert json.loads(message.data)["error"]["code"] == code


def test_what_was_joined_comes_apart_again() -> None:
    envelope, blob = blobs.split(blobs.join(b'{"a":1}', EVERY_BYTE))

    assert (bytes(envelope), bytes(blob)) == (b'{"a":1}', EVERY_BYTE)
