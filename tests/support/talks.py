"""Channels for tests of the bus: a method that opens one, servers for it, and either end played by hand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from nats.aio import msg as nats_msg

from paddock.bus import blobs, caller, channel_client, channels, clock, responder, safeclient
from paddock.contracts import ids, rpc, subjects
from tests.support import connections, peers, processes
from tests.support.peers import CALL, S, Text, TextBack

TALK = rpc.ChannelMethod("test.talk", Text, TextBack, TextBack)
OpenChannel = channel_client.OpenChannel[TextBack, TextBack]
Run = Callable[[channels.Channel], Awaitable[TextBack]]

T = TypeVar("T")
_encode = msgspec.json.encode


def serves(run: Run, method: rpc.ChannelMethod[Text, TextBack, TextBack] = TALK) -> responder.Handler:
    """A channel that `run` serves; it opens with the text it was asked with."""

    async def begin(params: Text, _call: responder.CallContext) -> channels.Opened[TextBack, TextBack]:
        return channels.Opened(TextBack(text=params.text), run)

    return responder.channel(method, begin)


def talk(asks: caller.Caller, **options: Any) -> contextlib.AbstractAsyncContextManager[OpenChannel]:
    """Open one to the machine."""
    settings: dict[str, Any] = {"timeout_s": 5, **options}
    return asks.open(CALL, TALK, Text(text="hello"), **settings)


@contextlib.asynccontextmanager
async def asker(client: safeclient.SafeClient, **options: Any) -> AsyncIterator[caller.Caller]:
    """A caller of a connection of your own."""
    async with caller.Caller(client, caller_id="prober-x2", clock=clock.SystemClock(), **options) as asks:
        yield asks


def cut(client: safeclient.SafeClient) -> None:
    """Break the connection, without a word."""
    writer = client._writer()
    assert writer is not None
    writer.transport.abort()


async def soon(waiting: Awaitable[T]) -> T:
    """What takes tenths of a second, by the periods the test gives."""
    async with asyncio.timeout(processes.WAIT_S):
        return await waiting


async def opened(asks: caller.Caller, **options: Any) -> str:
    """Open one, wait for its end, and say it."""
    async with talk(asks, **options) as channel:
        return (await channel.finish()).text


async def said(asks: caller.Caller, data: bytes) -> bytes:
    """Open one where `echo` serves, say one thing, and what comes back before the end."""
    async with talk(asks) as channel:
        await channel.send(data)
        await channel.send_eof()
        return b"".join([frame.data async for frame in channel])


@contextlib.asynccontextmanager
async def talking(bus: connections.Connections, run: Run) -> AsyncIterator[OpenChannel]:
    """One open channel between a machine where `run` serves it and an asker."""
    async with peers.machine(bus, serves(run)), peers.asker(bus) as asks, talk(asks) as channel:
        yield channel


async def echo(channel: channels.Channel) -> TextBack:
    """Send everything back; end with how many bytes it was."""
    size = 0
    async for frame in channel:
        size += len(frame.data)
        await channel.send(frame.data, kind=frame.kind, offset=frame.offset)
    return TextBack(text=str(size))


class Held:
    """Serves channels by waiting until it is told to end, and knows how that went."""

    def __init__(self) -> None:
        self.entered = 0
        self.cancelled = 0
        self.let_go = asyncio.Event()
        self.channel: channels.Channel | None = None

    async def run(self, channel: channels.Channel) -> TextBack:
        self.entered += 1
        self.channel = channel
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return TextBack(text="let go")


class Opener:
    """An opener by hand: says what no caller of ours would, and confirms only when told."""

    def __init__(self, client: Any, caller_id: str = "gateway-x1", request_id: str = "r1") -> None:
        self._client = client
        self.caller_id = caller_id
        self.request_id = request_id
        self.frames: list[tuple[int, int, int, bytes]] = []

    async def open(self) -> None:
        """Have the channel opened."""
        answer = await self.ask()
        assert answer.error is None, answer.error

    async def ask(self) -> rpc.Response:
        """Ask for the channel; the answer."""

        async def keep(message: nats_msg.Msg) -> None:
            self.frames.append((*channels.HEAD.unpack_from(message.data), message.data[channels.HEAD.size :]))

        if self.caller_id.replace("-", "").isalnum():
            await self._client.subscribe(subjects.out_for(self.caller_id), cb=keep)
        request = rpc.Request(method=TALK.name, id=self.request_id, caller=self.caller_id)
        message = await self._client.request(CALL, _encode(request), timeout=5)
        return msgspec.json.decode(message.data, type=rpc.Response)

    async def say(
        self, index: int, data: bytes = b"", *, kind: int = rpc.FrameKind.DATA, offset: int = 0, **forged: str
    ) -> None:
        """Publish a frame."""
        members = {"caller": self.caller_id, "request_id": self.request_id, **forged}
        params = rpc.FrameParams(index=index, kind=kind, offset=offset, **members)
        request = rpc.Request(method=rpc.FRAME.name, params=msgspec.Raw(_encode(params)))
        await self._client.publish(CALL, blobs.join(_encode(request), data))

    async def credit(self, received: int, *, stop: bool = False) -> None:
        """Confirm so many frames."""
        params = rpc.CreditParams(
            caller=self.caller_id, request_id=self.request_id, received=received, stop=stop
        )
        request = rpc.Request(method=rpc.CREDIT.name, params=msgspec.Raw(_encode(params)))
        await self._client.publish(subjects.rpc_control(S), _encode(request))

    def of(self, kind: int) -> list[tuple[int, int, int, bytes]]:
        """Frames of one kind so far."""
        return [one for one in self.frames if one[1] == kind]

    async def end(self) -> rpc.Response:
        """Wait for the last word."""
        await processes.until(lambda: self.of(rpc.FrameKind.END))
        return msgspec.json.decode(self.of(rpc.FrameKind.END)[-1][3], type=rpc.Response)


class Server:
    """A machine's daemon by hand: opens every channel, hears what is said, says what it is told to."""

    def __init__(self, client: Any, sandbox: ids.SandboxId = S) -> None:
        self._client = client
        self._sandbox = sandbox
        self.asked: list[rpc.Request] = []
        self.frames: list[tuple[rpc.FrameParams, bytes]] = []
        self.credits: list[rpc.CreditParams] = []
        self.says_first: list[bytes] = []
        """Said on a channel before its opening is answered."""

    async def start(self) -> None:
        """Begin to serve."""
        await self._client.subscribe(subjects.rpc_call(self._sandbox), "daemon", cb=self._on_call)
        await self._client.subscribe(subjects.rpc_control(self._sandbox), "daemon", cb=self._on_control)
        await self._client.flush()

    async def say(
        self, index: int, data: bytes = b"", *, kind: int = rpc.FrameKind.DATA, offset: int = 0
    ) -> None:
        """Publish a frame on the channel opened last."""
        await self.say_raw(frame(index, data, kind=kind, offset=offset))

    async def say_raw(self, message: bytes) -> None:
        """Publish anything on the channel opened last."""
        request = self.asked[-1]
        out = subjects.out(self._sandbox, request.caller, str(request.id))
        await self._client.publish(out, message)

    async def _on_call(self, message: nats_msg.Msg) -> None:
        data: bytes | memoryview = message.data
        blob: bytes | memoryview = b""
        if message.data.startswith(blobs.MARK):
            data, blob = blobs.split(message.data)
        request = msgspec.json.decode(data, type=rpc.Request)
        if request.method == rpc.FRAME.name:
            self.frames.append((msgspec.json.decode(request.params, type=rpc.FrameParams), bytes(blob)))
            return
        self.asked.append(request)
        for early in self.says_first:
            await self.say_raw(early)
        answer = rpc.Response(id=request.id, result=msgspec.Raw(b'{"text":"by hand"}'))
        await self._client.publish(message.reply, _encode(answer))

    async def _on_control(self, message: nats_msg.Msg) -> None:
        request = msgspec.json.decode(message.data, type=rpc.Request)
        self.credits.append(msgspec.json.decode(request.params, type=rpc.CreditParams))


def frame(index: int, data: bytes = b"", *, kind: int = rpc.FrameKind.DATA, offset: int = 0) -> bytes:
    """One frame to an opener."""
    return channels.HEAD.pack(index, kind, offset) + data


def end(index: int, text: str = "ended") -> bytes:
    """A last word."""
    response = rpc.Response(id="any", result=msgspec.Raw(_encode(TextBack(text=text))))
    return frame(index, _encode(response), kind=rpc.FrameKind.END)
