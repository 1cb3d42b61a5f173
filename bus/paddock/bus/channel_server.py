"""The server's end of channels, and the table of those a responder has open.

A channel is a task from its request to its end. It is cancelled when its opener says stop or was silent for `silence_s`,
when the connection breaks and when the process drains; after that nothing of it is left here. For `responder`.
"""

import asyncio
from typing import Final

import msgspec
import nats.errors

from paddock.bus import channels, chunks, handlers, lifecycle, logs, replies, safeclient
from paddock.contracts import errors, rpc

log = logs.get(__name__)

CHANNELS_MAX = 512
ABORT_S = 1.0
"""What cancelled channels get for their clean-up when the process drains."""
_END: Final = int(rpc.FrameKind.END)
_KEEPALIVE: Final = int(rpc.FrameKind.KEEPALIVE)
_CREDIT: Final = int(rpc.FrameKind.CREDIT)
_LOOKS: Final = 4
"""In one keepalive period: how often silences are looked at."""

_encode = msgspec.json.Encoder().encode


class ServedChannel(channels.Channel):
    """One channel from the request that opens it."""

    def __init__(self, nc: safeclient.SafeClient, out: str) -> None:
        super().__init__()
        self._nc = nc
        self._out = out
        self._task: asyncio.Task[None] | None = None
        self._may_be_cancelled = False
        self._asked_at = float("-inf")
        self._is_stopped = False

    @property
    def silent_s(self) -> float:
        """How long the opener has said nothing."""
        return self._loop.time() - self._heard_at

    @property
    def quiet_s(self) -> float:
        """How long we have said nothing, or have heard nothing."""
        return self._loop.time() - min(self._said_at, max(self._heard_at, self._asked_at))

    def credit(self, params: rpc.CreditParams) -> None:
        """Take what the opener confirms, or that it wants no more."""
        self._heard_at = self._loop.time()
        self._credited(params.received)
        if params.stop:
            self._is_stopped = True
            self.break_off(errors.ChannelBroken("the channel was closed by its opener"))

    def take(self, params: rpc.FrameParams, blob: channels.Data) -> None:
        """Take a frame of the opener's."""
        self._heard_at = self._loop.time()
        if params.kind != _KEEPALIVE:
            self._accept(params.index, params.kind, params.offset, blob)
        elif self._fault is None:
            self._is_next(params.index)
        if self._fault is not None:
            raise self._fault

    def break_off(self, fault: errors.Fault) -> None:
        """As of every channel; what serves it is cancelled, too."""
        if self._fault is None:
            super().break_off(fault)
            if self._may_be_cancelled and self._task is not None:
                self._task.cancel()

    def serve_by(self, task: asyncio.Task[None]) -> None:
        """Who serves it."""
        self._task = task

    def hold_off(self) -> None:
        """No cancelling until `let_go`: what was opened must come to whoever closes it."""
        self._may_be_cancelled = False

    def let_go(self) -> None:
        """The next await of its task may be cut short, and is if the channel broke off meanwhile."""
        self._may_be_cancelled = True
        if self._fault is not None and self._task is not None:
            self._task.cancel()

    async def say_alive(self) -> None:
        """Say that we are there, and how many frames were taken, in case the word about it was lost."""
        self._said_at = self._asked_at = self._loop.time()
        await self._put(self._sent, _KEEPALIVE, self._taken, b"")

    async def say_end(self, response: rpc.Response) -> None:
        """Say the last word, if anybody listens."""
        if self._is_stopped:
            return
        try:
            await self._put(self._sent, _END, 0, _encode(response))
        except nats.errors.Error as error:
            log.debug("channel_end_lost", reason=str(error))

    async def _put(self, index: int, kind: int, offset: int, data: channels.Data) -> None:
        await self._nc.publish(self._out, b"".join((channels.HEAD.pack(index, kind, offset), data)))

    async def _confirm(self) -> None:
        await self._put(self._sent, _CREDIT, self._taken, b"")


class ChannelServer:
    """The channels of one responder."""

    def __init__(
        self,
        nc: safeclient.SafeClient,
        tasks: asyncio.TaskGroup,
        answers: replies.Replies,
        *,
        keepalive_s: float,
        silence_s: float,
        channels_max: int,
    ) -> None:
        self._nc = nc
        self._tasks = tasks
        self._answers = answers
        self._keepalive_s = keepalive_s
        self._silence_s = silence_s
        self._channels_max = channels_max
        self._open: dict[chunks.StreamKey, ServedChannel] = {}
        self._serving: dict[chunks.StreamKey, asyncio.Task[None]] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def open_channels(self) -> int:
        """Channels that are open or being opened."""
        return len(self._open)

    def frame_handler(self) -> handlers.Handler:
        """What takes the openers' frames; quick, so that they stay in order."""

        def frame(params: rpc.FrameParams, call: handlers.CallContext) -> rpc.Done:
            channel = self._open.get((params.caller, params.request_id))
            if channel is None:
                raise errors.ChannelBroken("there is no such channel here")
            channel.take(params, call.blob_view)
            return rpc.Done()

        return handlers.handler(rpc.FRAME, frame)

    def credit(self, params: rpc.CreditParams) -> None:
        """Take what an opener confirms; a channel that is over, or was never ours, is passed over."""
        channel = self._open.get((params.caller, params.request_id))
        if channel is not None:
            channel.credit(params)

    def open(self, call: replies.Call, opening: handlers.Opening) -> None:
        """Open one, in a task of its own, and serve it to its end.

        Raises:
            errors.InvalidRequest: There is nowhere to send frames, or it is open already.
            errors.TooManyInFlight: No more of them.
            errors.ShuttingDown: The task group is ending.
        """
        key = (call.context.caller, call.context.request_id)
        if not call.out or key in self._open:
            raise errors.InvalidRequest("cannot open a channel: its caller or its id is of no use")
        if len(self._open) >= self._channels_max:
            raise errors.TooManyInFlight("too many channels are open here")
        channel = ServedChannel(self._nc, call.out)
        serving = self._serve(call, channel, opening)
        try:
            task = self._tasks.create_task(serving, name=call.request.method)
        except RuntimeError as error:
            serving.close()
            raise errors.ShuttingDown from error
        channel.serve_by(task)
        self._open[key] = channel
        self._serving[key] = task
        task.add_done_callback(lambda _task: self._forget(key))
        self._watch()

    async def close(self) -> None:
        """End all of them with `ShuttingDown`."""
        for channel in list(self._open.values()):
            channel.break_off(errors.ShuttingDown())
        if self._serving:
            await asyncio.wait(list(self._serving.values()), timeout=ABORT_S)

    async def _serve(self, call: replies.Call, channel: ServedChannel, opening: handlers.Opening) -> None:
        logs.bind(request_id=call.context.request_id)
        is_open = False
        try:
            channel.let_go()
            opened = await opening.begin()
            channel.hold_off()
            result = _fitting(_encode(opened.result))
            await self._answers.send(call.reply, rpc.Response(id=call.request.id, result=msgspec.Raw(result)))
            is_open = True
            channel.let_go()
            end = _fitting(_encode(await opened.run(channel)))
            await channel.say_end(rpc.Response(id=call.request.id, result=msgspec.Raw(end)))
        except asyncio.CancelledError:
            await self._tell(call, channel, channel.fault or errors.ShuttingDown(), is_open=is_open)
            raise
        except Exception as error:  # noqa: BLE001 - a bug ends this channel only; see faults
            await self._tell(call, channel, _cause(error), is_open=is_open)

    async def _tell(
        self, call: replies.Call, channel: ServedChannel, error: Exception, *, is_open: bool
    ) -> None:
        if is_open:
            await channel.say_end(replies.response(call, error))
        else:
            await self._answers.failure(call, error)

    def _forget(self, key: chunks.StreamKey) -> None:
        del self._open[key], self._serving[key]
        if not self._open:
            self._idle.set()

    def _watch(self) -> None:
        """Begin to look after them; it ends with the last one."""
        if self._idle.is_set():
            self._idle = asyncio.Event()
            self._tasks.create_task(self._look_after(self._idle), name="channels")

    async def _look_after(self, idle: asyncio.Event) -> None:
        unwatch = self._nc.watch(lost=self._on_lost)
        try:
            async for _ in lifecycle.every(self._keepalive_s / _LOOKS, idle):
                for channel in list(self._open.values()):
                    await self._look_at(channel)
        finally:
            unwatch()

    async def _look_at(self, channel: ServedChannel) -> None:
        if channel.silent_s >= self._silence_s:
            channel.break_off(errors.ChannelBroken("the channel broke off: its opener is gone"))
        elif channel.quiet_s >= self._keepalive_s and channel.fault is None:
            try:
                await channel.say_alive()
            except nats.errors.Error as error:
                channel.break_off(errors.ChannelBroken("the channel broke off", detail=str(error)))

    def _on_lost(self) -> None:
        for channel in list(self._open.values()):
            channel.break_off(errors.ChannelBroken("the channel broke off: the bus is not connected"))


def _fitting(body: bytes) -> bytes:
    if len(body) > channels.WORD_BYTES_MAX:
        raise errors.PayloadTooLarge(f"cannot answer with {len(body)} bytes: it is a channel's")
    return body


def _cause(error: Exception) -> Exception:
    """A fault that came out of task groups is that fault; with anything else beside it, it is a bug."""
    if not isinstance(error, ExceptionGroup) or error.split(errors.Fault)[1] is not None:
        return error
    first: Exception = error
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    return first
