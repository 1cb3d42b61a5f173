"""Answer what is asked on one subject of the bus.

Every request gets one answer: a result, a fault of the catalogue, or `Internal` with a request id and no
text. A request that arrives after its deadline is refused and not carried out; one whose reply would go to a
subject that is no inbox is dropped, because whoever asks could have us write anywhere. A crash of one handler
ends that request only.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Mapping
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio import msg as nats_msg
from nats.aio import subscription as nats_subscription

from paddock.bus import (
    blobs,
    channel_server,
    channels,
    chunks,
    clock,
    faults,
    handlers,
    logs,
    replies,
    safeclient,
)
from paddock.contracts import errors, rpc

log = logs.get(__name__)

CLOCK_SKEW_MS = 2000
"""By how much two hosts' clocks may differ before a call in time is taken for late."""
INBOXES: Final = ("_R_.", "_INBOX_")
"""How reply subjects begin: the server's own for calls across accounts, and the inboxes of our users."""
ABORT_S = 1.0
"""What handlers cancelled at the end of a drain get for their clean-up."""
FLUSH_S = 2
_NOT_COUNTED: Final = frozenset({rpc.FRAME.name})
"""What belongs to something that was accepted before."""

StillRunning = handlers.StillRunning
CallContext = handlers.CallContext
Handler = handlers.Handler
handler = handlers.handler
channel = handlers.channel
table = handlers.table

_encode = msgspec.json.Encoder().encode
_decode_request = msgspec.json.Decoder(rpc.Request).decode


class Responder:
    """Serves one subject. Requests run at the same time, at most `max_in_flight` of them."""

    def __init__(
        self,
        nc: safeclient.SafeClient,
        *,
        subject: str,
        handlers: Mapping[str, Handler],
        clock: clock.Clock,
        tasks: asyncio.TaskGroup,
        queue: str = "",
        max_in_flight: int = 256,
        held_reply_s: float = rpc.HELD_REPLY_S,
        credit_s: float = chunks.CREDIT_S,
        keepalive_s: float = channels.KEEPALIVE_S,
        silence_s: float = channels.SILENCE_S,
        channels_max: int = channel_server.CHANNELS_MAX,
    ) -> None:
        """Make one; it serves from `start` on.

        Args:
            nc: The connection.
            subject: May hold wildcards; handlers see the one that was asked.
            handlers: By method name; see `table`.
            clock: Judges deadlines.
            tasks: Where handlers run. It must outlive this responder.
            queue: Peers with the same queue share the requests.
            max_in_flight: One more is answered `TooManyInFlight`.
            held_reply_s: How long handlers may hold a reply; see `CallContext.hold`.
            credit_s: How long a receiver of a large answer may say nothing.
            keepalive_s: After so long without a word on a channel we say that we are there.
            silence_s: The opener of a channel that says nothing for so long is gone.
            channels_max: Of channels at once, which do not count as in flight; one more is `TooManyInFlight`.
        """
        self._nc = nc
        self._subject = subject
        self._handlers = dict(handlers)
        self._clock = clock
        self._tasks = tasks
        self._queue = queue
        self._max_in_flight = max_in_flight
        self._held_reply_s = held_reply_s
        self._chunks = chunks.ChunkSender(nc, credit_s=credit_s)
        self._replies = replies.Replies(nc, self._chunks)
        self._channels = channel_server.ChannelServer(
            nc,
            tasks,
            self._replies,
            keepalive_s=keepalive_s,
            silence_s=silence_s,
            channels_max=channels_max,
        )
        if any(one.is_channel for one in self._handlers.values()):
            self._handlers[rpc.FRAME.name] = self._channels.frame_handler()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._subscription: nats_subscription.Subscription | None = None
        self._is_over = False

    @property
    def in_flight(self) -> int:
        """Requests whose handlers or answers are under way."""
        return len(self._in_flight)

    @property
    def open_streams(self) -> int:
        """Answers that are going out in chunks."""
        return self._chunks.open_streams

    @property
    def open_channels(self) -> int:
        """Channels that are open or being opened."""
        return self._channels.open_channels

    def credit_handler(self) -> Handler:
        """What the control subject's handlers must include for its large answers and channels to flow."""

        def credit(params: rpc.CreditParams, _call: CallContext) -> rpc.Done:
            self._chunks.credit(params)
            self._channels.credit(params)
            return rpc.Done()

        return handler(rpc.CREDIT, credit)

    async def start(self) -> None:
        """Begin to serve; requests sent after this returned will be heard."""
        self._subscription = await self._nc.subscribe(self._subject, self._queue, cb=self._on_request)
        # Another connection's request can overtake the subscription until the server has confirmed it.
        with contextlib.suppress(nats.errors.Error):
            await self._nc.flush()

    async def serve(self, stop: asyncio.Event, *, drain_s: float) -> None:
        """Serve until `stop`, then drain: a loop for `lifecycle.run`."""
        await self.start()
        await stop.wait()
        await self.drain(drain_s)

    async def drain(self, drain_s: float) -> None:
        """Take no more, answer what was accepted, end channels at once.

        After `drain_s` what is left is cancelled and answered `ShuttingDown`.
        """
        ends_at = asyncio.get_running_loop().time() + drain_s
        await self._unsubscribe(drain_s)
        await self._channels.close()
        while self._in_flight:
            left_s = ends_at - asyncio.get_running_loop().time()
            if left_s <= 0:
                break
            await asyncio.wait(self._in_flight, timeout=left_s)
        await self._abort()
        if self._nc.is_connected:
            with contextlib.suppress(nats.errors.Error):
                await self._nc.flush(FLUSH_S)

    async def _unsubscribe(self, limit_s: float) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        # drain() also hands us what the server had already sent; a broken connection has none of that.
        try:
            async with asyncio.timeout(limit_s):
                if self._nc.is_connected:
                    await subscription.drain()  # type: ignore[no-untyped-call]
                else:
                    await subscription.unsubscribe()
        except (nats.errors.Error, TimeoutError) as error:
            log.warning("responder_unsubscribe_failed", subject=self._subject, reason=str(error))

    async def _abort(self) -> None:
        # What still comes, because unsubscribing was cut short, would be cancelled before its first step, too.
        self._is_over = True
        # A task cancelled before its first step never runs, and its request would not be answered.
        await asyncio.sleep(0)
        left = set(self._in_flight)
        for task in left:
            task.cancel()
        if left:
            log.warning("calls_cut_short", subject=self._subject, count=len(left))
            await asyncio.wait(left, timeout=ABORT_S)

    async def _on_request(self, message: nats_msg.Msg) -> None:
        """Parse and check here, in order of arrival; work in a task."""
        reply = message.reply
        if reply and not reply.startswith(INBOXES):
            log.warning("forged_reply_refused", subject=message.subject, reply=reply)
            return
        data: channels.Data = message.data
        blob: channels.Data = b""
        try:
            if message.data.startswith(blobs.MARK):
                data, blob = blobs.split(message.data)
            request = _decode_request(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, errors.InvalidRequest) as error:
            await self._replies.send(reply, faults.response(faults.unreadable(error), None))
            return
        call = replies.Call(request, reply, self._context(message.subject, request, blob))
        try:
            outcome = self._begin(call)
            body = _encode(outcome) if isinstance(outcome, handlers.Outcome) else None
            if body is None and isinstance(outcome, handlers.Opening):
                self._channels.open(call, outcome)
                return
        except Exception as error:  # noqa: BLE001 - a bug ends this request only; see faults
            await self._replies.failure(call, error)
            return
        if body is None:
            await self._spawn(call, outcome)
        else:
            await self._send_result(call, body)

    def _context(self, subject: str, request: rpc.Request, blob: channels.Data) -> CallContext:
        return CallContext(
            subject=subject,
            caller=request.caller,
            call_id=request.call_id,
            deadline_ms=request.deadline_ms,
            traceparent=request.traceparent,
            request_id=str(request.id) if request.id is not None else secrets.token_hex(8),
            held_s=self._held_reply_s,
            blob_view=blob,
        )

    def _begin(self, call: replies.Call) -> Any:
        """The result of a plain handler, or the coroutine of an async one."""
        request = call.request
        if self._is_over:
            raise errors.ShuttingDown
        found = self._handlers.get(request.method)
        if found is None:
            raise errors.MethodNotFound(f"there is no method {request.method[:80]!r} here")
        if request.deadline_ms and self._clock.now_ms() > request.deadline_ms + CLOCK_SKEW_MS:
            raise errors.LateCall
        if len(self._in_flight) >= self._max_in_flight and request.method not in _NOT_COUNTED:
            raise errors.TooManyInFlight
        try:
            params = found.decode(request.params)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise errors.InvalidParams(f"cannot use the parameters of {found.name}: {error}") from error
        return found.work(params, call.context)

    async def _spawn(self, call: replies.Call, work: Awaitable[handlers.Outcome]) -> None:
        serving = self._serve(call, work)
        try:
            task = self._tasks.create_task(serving, name=call.request.method)
        except RuntimeError:
            # The task group is ending: we should have been drained before.
            serving.close()
            if asyncio.iscoroutine(work):
                work.close()
            await self._replies.failure(call, errors.ShuttingDown())
            return
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)

    async def _serve(self, call: replies.Call, work: Awaitable[handlers.Outcome]) -> None:
        logs.bind(request_id=call.context.request_id)
        try:
            body = _encode(await work)
        except asyncio.CancelledError:
            await self._replies.failure(call, errors.ShuttingDown())
            raise
        except Exception as error:  # noqa: BLE001 - a bug ends this request only; see faults
            await self._replies.failure(call, error)
        else:
            await self._send_result(call, body)

    async def _send_result(self, call: replies.Call, body: bytes) -> None:
        try:
            is_sent = await self._replies.result(call, body)
        except errors.PayloadTooLarge as fault:
            await self._replies.failure(call, fault)
            return
        if is_sent:
            return
        if asyncio.current_task() in self._in_flight:
            await self._replies.stream(call, body)
        else:
            # A plain handler: the subscription must not wait for a receiver.
            await self._spawn(call, _value(msgspec.Raw(body)))


async def _value(outcome: handlers.Outcome) -> handlers.Outcome:
    return outcome
