"""port.open: bytes both ways at the pace of whoever takes them, each direction with an end of its own."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from paddock.bus import caller, channels, handlers
from paddock.contracts import errors, ports, rpc, subjects
from paddock.daemon import port_open
from tests.daemon import machine as machines
from tests.support import nats_server, processes

CALL = subjects.rpc_call(machines.SANDBOX)
CONTEXT = handlers.CallContext(
    subject="", caller="", call_id="", deadline_ms=0, traceparent="", request_id="", held_s=1
)
MIB = 1024 * 1024

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Opener(channels.Channel):
    """The other end of a tunnel, beside it in memory."""

    def __init__(self, *, takes: bool = True) -> None:
        super().__init__()
        self.got = bytearray()
        self.frames = 0
        self.has_eof = asyncio.Event()
        self.confirmed = 0
        self._said = 0
        self._takes = takes

    def say(self, data: bytes) -> None:
        self._accept(self._said, rpc.FrameKind.DATA, 0, data)
        self._said += 1

    def say_eof(self) -> None:
        self._accept(self._said, rpc.FrameKind.EOF, 0, b"")
        self._said += 1

    async def _put(self, index: int, kind: int, offset: int, data: channels.Data) -> None:
        if kind == rpc.FrameKind.EOF:
            self.has_eof.set()
            return
        assert offset == len(self.got)
        self.got += data
        self.frames += 1
        if self._takes:
            self._credited(index + 1)

    async def _confirm(self) -> None:
        self.confirmed = self._taken


@contextlib.asynccontextmanager
async def serving(serve: Serve, host: str = "127.0.0.1") -> AsyncIterator[int]:
    server = await asyncio.start_server(serve, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@contextlib.asynccontextmanager
async def tunnel(port: int, opener: Opener) -> AsyncIterator[asyncio.Task[ports.Closed]]:
    opened = await port_open.connect(ports.OpenParams(port=port), CONTEXT)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        yield tasks.create_task(as_closed(opened.run(opener)))


async def as_closed(running: Awaitable[object]) -> ports.Closed:
    closed = await running
    assert isinstance(closed, ports.Closed)
    return closed


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_bytes_go_both_ways_and_each_side_may_end_first() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        content = await reader.read()  # to the end of what the other side says
        writer.write(content[::-1])
        writer.close()

    opener = Opener()
    async with serving(serve) as port, tunnel(port, opener) as closed:
        opener.say(b"hello ")
        opener.say(b"world")
        opener.say_eof()

    assert bytes(opener.got) == b"dlrow olleh"
    assert opener.has_eof.is_set()
    assert closed.result() == ports.Closed(sent_bytes=11, received_bytes=11)


async def test_what_the_opener_says_arrives_after_the_port_said_its_last() -> None:
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        heard.extend(await reader.read())
        writer.close()

    opener = Opener()
    async with serving(serve) as port, tunnel(port, opener) as closed:
        await opener.has_eof.wait()
        opener.say(b"still here")
        opener.say_eof()

    assert (bytes(opener.got), bytes(heard)) == (b"bye", b"still here")
    assert not closed.result().reset


async def test_a_port_on_the_other_loopback_address_is_found() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"six")
        writer.close()

    opener = Opener()
    async with serving(serve, "::1") as port:
        opened = await port_open.connect(ports.OpenParams(port=port), CONTEXT)
        opener.say_eof()
        await opened.run(opener)

    assert opened.result.address == "::1"
    assert bytes(opener.got) == b"six"


async def test_a_port_where_nothing_listens_is_refused_at_once() -> None:
    before = processes.open_fds()
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(errors.PortRefused, match=r"^cannot connect to port "):
        await port_open.connect(ports.OpenParams(port=free_port()), CONTEXT)

    assert loop.time() - began < 1
    assert processes.open_fds() == before


async def test_a_port_that_does_not_accept_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_open, "CONNECT_S", 0.2)
    before = processes.open_fds()
    with contextlib.ExitStack() as held:
        listening = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listening.getsockname()[1]
        for _ in range(4):  # what is not accepted fills the backlog
            filling = held.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(("127.0.0.1", port))
        with pytest.raises(errors.PortRefused):
            await port_open.connect(ports.OpenParams(port=port), CONTEXT)

    assert processes.open_fds() == before


async def test_a_slow_opener_holds_up_the_port_and_nothing_piles_up() -> None:
    written = 0

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(MIB))
                await writer.drain()
                written += MIB

    opener = Opener(takes=False)
    async with serving(serve) as port, tunnel(port, opener) as closed:
        await processes.until(lambda: opener.frames == rpc.FRAME_WINDOW)
        before = written
        await asyncio.sleep(0.1)
        assert written - before <= 8 * MIB  # what the kernel's buffers take
        assert opener.frames == rpc.FRAME_WINDOW
        closed.cancel()

    assert closed.cancelled()


async def test_a_port_that_reads_slowly_holds_up_the_opener() -> None:
    may_read = asyncio.Event()
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await may_read.wait()
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        heard.extend(await reader.read())
        writer.close()

    opener = Opener()
    content = os.urandom(rpc.FRAME_BYTES)
    async with serving(serve) as port, tunnel(port, opener):
        said = 0
        while said - opener.confirmed < rpc.FRAME_WINDOW:
            opener.say(content)
            said += 1
            await asyncio.sleep(0.005)
        assert said < 200
        may_read.set()
        await processes.until(lambda: opener.confirmed == said)
        opener.say_eof()

    assert bytes(heard) == content * said


async def test_a_connection_that_the_port_resets_is_said_so() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    opener = Opener()
    async with serving(serve) as port, tunnel(port, opener) as closed:
        opener.say(b"x" * 10_000)

    assert closed.result().reset


async def test_the_application_learns_that_its_peer_is_gone() -> None:
    learned: asyncio.Queue[str] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
            learned.put_nowait("end")
        except ConnectionResetError:
            learned.put_nowait("reset")
        writer.close()

    before = processes.open_fds()
    opener = Opener()
    async with serving(serve) as port:
        async with tunnel(port, opener) as closed:
            opener.say(b"x")
            await processes.until(lambda: opener.confirmed == 1)
            closed.cancel()
        async with asyncio.timeout(5):
            assert await learned.get() == "reset"
    await processes.until(lambda: processes.open_fds() <= before + 1)


async def test_a_channel_that_breaks_ends_the_tunnel_with_its_fault() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    opener = Opener()
    async with serving(serve) as port:
        opened = await port_open.connect(ports.OpenParams(port=port), CONTEXT)
        opener.break_off(errors.ChannelBroken("gone"))
        with pytest.raises(errors.ChannelBroken, match="gone"):
            await opened.run(opener)


@pytest.mark.usefixtures("registrar")
async def test_over_the_bus_a_port_is_as_near_as_its_machine(
    machine: machines.Machine, server: nats_server.NatsServer, asking: caller.Caller
) -> None:
    content = os.urandom(3 * MIB)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    machine.tell(server)
    machine.start("run")
    await processes.until(lambda: machine.state().get("stateReason") == "ready")
    async with serving(serve) as port:
        params = ports.OpenParams(port=port)
        async with (
            asking.open(CALL, ports.OPEN, params, timeout_s=10) as channel,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(_say(channel, content))
            got = b"".join([bytes(frame.data) async for frame in channel])
            closed = await channel.finish()
        with pytest.raises(errors.PortRefused):
            async with asking.open(CALL, ports.OPEN, ports.OpenParams(port=free_port()), timeout_s=10):
                pass

    assert got == content
    assert channel.opened.address == "127.0.0.1"
    assert closed == ports.Closed(sent_bytes=len(content), received_bytes=len(content))


async def _say(channel: channels.Channel, content: bytes) -> None:
    for begin in range(0, len(content), rpc.FRAME_BYTES):
        await channel.send(content[begin : begin + rpc.FRAME_BYTES])
    await channel.send_eof()
