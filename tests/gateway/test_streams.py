"""Streams beside the calls of one connection: credits, limits, what is refused, and how everything ends."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddock.bus import channels, lifecycle
from paddock.contracts import errors, files, phases, ports, rpc
from paddock.contracts.api import streams
from paddock.gateway import streams as served
from paddock.gateway import websocket
from tests.gateway import door, stream_socket, toolbox

DATA, STDERR, EOF = stream_socket.DATA, stream_socket.STDERR, stream_socket.EOF
BIG = bytes(range(256)) * 4 * 1024 * 64
"""64 MiB: more than sockets and buffers on the way hold."""


@pytest.fixture
async def box(gateway: door.Door) -> AsyncIterator[toolbox.Toolbox]:
    machine = await gateway.machine_in(phases.Phase.ACTIVE)
    async with toolbox.running(gateway, machine) as running:
        running.files["/small"] = b"small"
        running.files["/big"] = BIG
        running.ports[7] = echo
        yield running


async def echo(channel: channels.Channel) -> ports.Closed:
    count = 0
    async for frame in channel:
        await channel.send(frame.data)
        count += len(frame.data)
    await channel.send_eof()
    return ports.Closed(sent_bytes=count, received_bytes=count)


async def until(is_so: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not is_so():
            await lifecycle.pause(0.005, asyncio.Event())


async def settled(count: Callable[[], int], for_s: float = 0.3) -> int:
    """The count once it has not changed for so long; nothing happening has no event to wait for."""
    while True:
        seen = count()
        try:
            await until(lambda: count() != seen, for_s)  # noqa: B023
        except TimeoutError:
            return seen


async def open_port(socket: stream_socket.StreamSocket, box: toolbox.Toolbox) -> int:
    return int((await socket.call("machine.portOpen", machineId=box.machine, port=7))["stream"])


async def open_file(socket: stream_socket.StreamSocket, box: toolbox.Toolbox, path: str) -> int:
    return int((await socket.call("machine.fileRead", machineId=box.machine, path=path))["stream"])


async def open_upload(socket: stream_socket.StreamSocket, box: toolbox.Toolbox) -> int:
    asked = {"machineId": box.machine, "path": "/new", "upload": "u1"}
    return int((await socket.call("machine.fileWrite", **asked))["stream"])


async def test_streams_are_numbered_from_one_and_a_number_never_comes_again(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        numbers = []
        for _ in range(3):
            numbers.append(await open_file(socket, box, "/small"))
            await socket.end(numbers[-1])

    assert numbers == [1, 2, 3]


async def test_no_frame_comes_before_its_number_nor_after_its_end(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    """Many at once in one batch, so that the answer comes long after the first of them is open."""
    params = {"machineId": box.machine, "path": "/small"}
    call = {"jsonrpc": "2.0", "method": "machine.fileRead", "params": params}
    async with stream_socket.opened(gateway) as socket:
        await socket.ws.send_json([{**call, "id": number} for number in range(100, 140)])
        first = await socket.ws.receive()
        await socket.until(lambda: len(socket.ended) == 40)
        await socket.call("system.ping")

    assert first.type == aiohttp.WSMsgType.TEXT
    assert len(first.json()) == 40
    assert {socket.content(number) for number in range(1, 41)} == {b"small"}
    assert socket.after_end == 0


async def test_a_client_that_does_not_read_is_sent_no_more_and_stops_the_machine_in_time(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        number = await open_file(socket, box, "/big")
        held_bytes = await settled(lambda: box.frames) * rpc.FRAME_BYTES
        async with stream_socket.opened(gateway) as other:
            quick = await open_file(other, box, "/small")
            await other.end(quick)
        end = await socket.end(number)

    assert held_bytes < len(BIG) // 4, "what the kernel and the client hold, and a window"
    assert other.content(quick) == b"small"
    assert (socket.size(number), end["size"]) == (len(BIG), len(BIG))
    assert socket.content(number) == BIG


async def test_a_client_that_pauses_is_not_taken_for_gone(
    gateway: door.Door, box: toolbox.Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "PING_S", 0.02)
    async with stream_socket.opened(gateway) as socket:
        number = await open_file(socket, box, "/big")
        for megabytes in (1, 20):
            await socket.until(lambda: socket.size(number) >= megabytes * 1024 * 1024)  # noqa: B023
            await lifecycle.pause(0.5, asyncio.Event())
        await socket.end(number)

    assert socket.content(number) == BIG


async def test_a_client_of_which_nothing_is_heard_is_gone(
    gateway: door.Door, box: toolbox.Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "PING_S", 0.05)
    monkeypatch.setattr(websocket, "SILENCE_S", 0.4)
    async with (
        stream_socket.opened(gateway) as answers,
        stream_socket.opened(gateway, autoping=False) as silent,
    ):
        await open_port(answers, box)
        await silent.begin("machine.portOpen", machineId=box.machine, port=7)
        await until(lambda: box.open_now == 2)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(answers.ws.receive())  # and with that, answers pings
            await until(lambda: box.open_now == 1)
            left = await settled(lambda: box.open_now, 0.6)
            reading.cancel()

    assert left == 1


async def test_pings_of_a_client_are_answered(gateway: door.Door) -> None:
    async with stream_socket.opened(gateway, autoping=False) as socket:
        await socket.ws.ping(b"are you there")
        pong = await socket.ws.receive(timeout=5)

    assert (pong.type, pong.data) == (aiohttp.WSMsgType.PONG, b"are you there")


async def test_a_client_that_goes_away_ends_its_streams_within_seconds(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        await open_file(socket, box, "/big")
        await open_port(socket, box)
        await open_upload(socket, box)
        await until(lambda: box.open_now == 2)
        transport = socket.ws.get_extra_info("socket")
        assert transport is not None
        socket.ws._response.connection.transport.abort()  # type: ignore[union-attr]
        await until(lambda: box.open_now == 0, 3.0)

    assert gateway.context.caller.in_flight == 0


async def test_a_client_that_goes_away_while_a_stream_opens_leaves_nothing_waiting(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    box.holds[files.READ.name] = asyncio.Event()
    async with stream_socket.opened(gateway) as socket:
        await socket.begin("machine.fileRead", machineId=box.machine, path="/small")
        await until(lambda: box.names() == ["file.read"])
        close = await socket.refused("stream.close", stream=1)
    await until(lambda: gateway.context.caller.in_flight == 0, 3.0)
    box.holds[files.READ.name].set()
    await until(lambda: box.opened == 1 and box.open_now == 0, 5.0)

    assert close["data"]["kind"] == "not_found", "nobody was told its number"


async def test_a_stream_that_was_not_open_yet_when_the_gateway_stops_is_refused(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    box.holds[files.READ.name] = asyncio.Event()
    async with stream_socket.opened(gateway) as socket:
        asked = await socket.begin("machine.fileRead", machineId=box.machine, path="/small")
        await until(lambda: box.names() == ["file.read"])
        gateway.stop.set()
        await socket.closed()
        box.holds[files.READ.name].set()

    assert socket.responses[asked]["error"]["data"]["kind"] == "shutting_down"
    assert socket.ended == {}


async def test_a_stream_that_is_closed_sends_nothing_after_the_answer(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        number = await open_file(socket, box, "/big")
        assert await socket.call("stream.close", stream=number) == {}
        had = socket.size(number)
        again = await socket.call("stream.close", stream=number)
        unknown = await socket.refused("stream.close", stream=number + 1)
        await until(lambda: box.open_now == 0)
        await socket.call("system.ping")

    assert (again, unknown["data"]["kind"]) == ({}, "not_found")
    assert (socket.size(number), socket.ended) == (had, {})


async def test_a_connection_has_only_so_many_streams(gateway: door.Door, box: toolbox.Toolbox) -> None:
    async with stream_socket.opened(gateway) as socket:
        for _ in range(streams.STREAMS_MAX):
            await open_port(socket, box)
        refused = await socket.refused("machine.portOpen", machineId=box.machine, port=7)
        await socket.call("stream.close", stream=3)
        assert await open_port(socket, box) > streams.STREAMS_MAX

    assert (refused["data"]["kind"], refused["data"]["limitStreams"]) == ("too_many_in_flight", 64)


MALFORMED = {
    "empty": b"",
    "too short": b"\x01\x00\x00",
    "an unknown kind": b"\x09" + bytes(12),
    "a call": b'{"jsonrpc":"2.0","id":1,"method":"system.ping"}',
    "stream 0": streams.frame(DATA, 0, 0, b"x"),
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_binary_message_that_is_no_frame_is_refused_and_the_connection_lives(
    gateway: door.Door, box: toolbox.Toolbox, message: bytes
) -> None:
    async with stream_socket.opened(gateway) as socket:
        number = await open_port(socket, box)
        await socket.ws.send_bytes(message)
        await socket.until(lambda: bool(socket.refusals))
        await socket.send(number, 0, b"hello")
        await socket.until(lambda: socket.content(number) == b"hello")

    [refusal] = socket.refusals
    assert refusal["data"]["kind"] in {"invalid_request", "not_found"}


RANDOM_FRAMES = st.builds(
    lambda kind, stream, offset, payload: struct.pack(">BIQ", kind, stream, offset) + payload,
    st.integers(0, 5),
    st.integers(0, 4),
    st.integers(0, 3) | st.just(2**64 - 1),
    st.binary(max_size=3),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(messages=st.lists(RANDOM_FRAMES | st.binary(max_size=30), max_size=12))
async def test_random_frames_are_never_our_error_and_the_connection_lives(
    gateway: door.Door, box: toolbox.Toolbox, messages: list[bytes]
) -> None:
    async with stream_socket.opened(gateway) as socket:
        for _ in range(2):
            await open_port(socket, box)
        await open_upload(socket, box)
        for message in messages:
            await socket.ws.send_bytes(message)
        pong = await socket.call("system.ping")

    said = [*socket.refusals, *(one["error"] for one in socket.ended.values() if one.get("error"))]
    assert pong == {"pong": True}
    assert "internal" not in {one["data"]["kind"] for one in said}


async def test_a_frame_for_a_stream_that_never_was_is_refused(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        await socket.send(5, 0, b"x")
        await socket.send(5, 0, bytes(streams.FRAME_BYTES_MAX + 1))
        await socket.until(lambda: len(socket.refusals) == 2)
        assert await open_port(socket, box) == 1

    assert [(one["data"]["kind"], one["data"]["stream"]) for one in socket.refusals] == [("not_found", 5)] * 2
    assert socket.ended == {}


async def test_frames_that_cross_the_end_are_dropped(gateway: door.Door, box: toolbox.Toolbox) -> None:
    async with stream_socket.opened(gateway) as socket:
        number = await open_file(socket, box, "/small")
        await socket.end(number)
        for _ in range(3):
            await socket.send(number, 0, b"late")
        await socket.call("system.ping")

    assert (socket.refusals, len(socket.ended)) == ([], 1)


BREACHES: dict[str, tuple[list[bytes], str]] = {
    "a gap": ([streams.frame(DATA, 1, 1, b"x")], "bad_offset"),
    "a repetition": ([streams.frame(DATA, 1, 0, b"x"), streams.frame(DATA, 1, 0, b"x")], "bad_offset"),
    "standard error": ([streams.frame(STDERR, 1, 0, b"x")], "invalid_request"),
    "an EOF with content": ([streams.frame(EOF, 1, 0, b"x")], "invalid_request"),
    "more after EOF": ([streams.frame(EOF, 1, 0), streams.frame(DATA, 1, 0, b"x")], "invalid_request"),
    "too much in one frame": (
        [streams.frame(DATA, 1, 0, bytes(streams.FRAME_BYTES_MAX + 1))],
        "payload_too_large",
    ),
    "more than the window": (
        [streams.frame(DATA, 1, number * 131_072, bytes(131_072)) for number in range(5)],
        "payload_too_large",
    ),
}


@pytest.mark.parametrize(("messages", "kind"), BREACHES.values(), ids=BREACHES.keys())
async def test_what_a_client_may_not_send_ends_that_stream_and_no_other(
    gateway: door.Door, box: toolbox.Toolbox, messages: list[bytes], kind: str
) -> None:
    async with stream_socket.opened(gateway) as socket:
        first = await open_upload(socket, box)
        other = await open_port(socket, box)
        box.write_pause.clear()
        for message in messages:
            await socket.ws.send_bytes(message)
        fault = await socket.fault(first)
        await socket.send(other, 0, b"still here")
        await socket.until(lambda: socket.content(other) == b"still here")
        box.write_pause.set()

    assert (first, fault["data"]["kind"]) == (1, kind)
    assert list(socket.ended) == [first]


async def test_a_frame_for_a_stream_that_takes_none_ends_it(gateway: door.Door, box: toolbox.Toolbox) -> None:
    async with stream_socket.opened(gateway) as socket:
        number = await open_file(socket, box, "/big")
        await socket.send(number, 0, b"x")
        fault = await socket.fault(number)
        await socket.call("system.ping")

    assert fault["data"]["kind"] == "invalid_request"
    assert "nothing can be sent" in fault["message"]
    assert socket.after_end == 0


async def test_a_thousand_small_frames_are_few_messages_of_the_bus(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        number = await open_upload(socket, box)
        box.write_pause.clear()
        for offset in range(1000):
            await socket.send(number, offset, b"%d" % (offset % 10))
        await socket.send(number, 1000, kind=EOF)
        await socket.call("system.ping")
        box.write_pause.set()
        end = await socket.end(number)

    assert bytes(box.uploads["u1"]) == b"0123456789" * 100
    assert end == {"received": 1000}
    assert box.names().count("file.write") <= 1 + 2 * 4


async def test_streams_are_told_when_the_gateway_stops(gateway: door.Door, box: toolbox.Toolbox) -> None:
    async with stream_socket.opened(gateway) as socket:
        numbers = [await open_port(socket, box), await open_upload(socket, box)]
        gateway.stop.set()
        code = await socket.closed()

    kinds = [socket.ended[number]["error"]["data"]["kind"] for number in numbers]
    assert kinds == ["shutting_down", "shutting_down"]
    assert code == aiohttp.WSCloseCode.GOING_AWAY


async def test_a_client_that_does_not_read_does_not_keep_a_gateway_from_stopping(
    gateway: door.Door, box: toolbox.Toolbox
) -> None:
    async with stream_socket.opened(gateway) as socket:
        await open_file(socket, box, "/big")
        await until(lambda: box.frames > 8)
        gateway.stop.set()
        await until(lambda: box.open_now == 0, 5.0)

    assert gateway.context.caller.in_flight == 0


async def test_a_token_that_is_revoked_ends_the_streams_even_of_a_client_that_does_not_read(
    gateway: door.Door, box: toolbox.Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "TOKEN_CHECK_S", 0.05)
    monkeypatch.setattr(websocket, "CLOSE_S", 0.3)
    token_id = (await gateway.call("token.list"))["tokens"][0]["id"]
    async with stream_socket.opened(gateway) as reads, stream_socket.opened(gateway) as reads_not:
        number = await open_port(reads, box)
        await open_file(reads_not, box, "/big")
        await gateway.call("token.revoke", tokenId=token_id)
        code = await reads.closed()
        await until(lambda: box.open_now == 0, 5.0)

    assert (code, reads.ended[number]["error"]["data"]["kind"]) == (4401, "unauthenticated")


async def test_a_bug_ends_a_stream_with_an_id_and_without_a_text(
    gateway: door.Door, box: toolbox.Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise ZeroDivisionError("s3cret")

    async with stream_socket.opened(gateway) as socket:
        number = await open_port(socket, box)
        monkeypatch.setattr(served.Stream, "taken", fails)
        await socket.send(number, 0, b"x")
        fault = await socket.fault(number)

    assert (fault["data"]["kind"], bool(fault["data"]["requestId"])) == ("internal", True)
    assert "s3cret" not in fault["message"]


def test_the_first_fault_of_a_group_comes_out_as_it_is() -> None:
    async def fail() -> None:
        raise errors.DiskFull

    async def run() -> None:
        async with served.together() as tasks:
            tasks.create_task(fail())
            await asyncio.Event().wait()

    with pytest.raises(errors.DiskFull):
        asyncio.run(run())
