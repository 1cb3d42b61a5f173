"""One request and its reply, over one connection and one inbox.

Every request ends: by its reply, by its deadline, or at once when nobody listens or the bus is not connected.
For `caller`, which makes calls of exchanges; nobody else sends requests.
"""

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio import msg as nats_msg
from nats.aio import subscription as nats_subscription

from paddock.bus import blobs, channel_client, channels, chunks, clock, logs, pending, safeclient
from paddock.contracts import errors, rpc, subjects

log = logs.get(__name__)

_TOKEN_BYTES = 9
"""Of a request id, also the last token of two subjects: nobody guesses where an answer is awaited."""
_CALLER_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_NOT_SENT: Final = (
    nats.errors.OutboundBufferLimitError,
    nats.errors.ConnectionClosedError,
    nats.errors.ConnectionDrainingError,
)

Answer = pending.Answer

_encode = msgspec.json.Encoder().encode


class Exchange:
    """What is asked and not yet answered on one connection."""

    def __init__(
        self,
        nc: safeclient.SafeClient,
        *,
        caller_id: str,
        clock: clock.Clock,
        reply_within_s: float,
        answer_bytes_max: int,
        probe_s: float,
        silence_s: float,
    ) -> None:
        """Make one; it is used between `open` and `close`.

        Args:
            nc: A connection that buffers nothing while it is down.
            caller_id: A token of subjects, unique in the fleet.
            clock: For deadlines.
            reply_within_s: A reply that takes longer will never come.
            answer_bytes_max: Of an answer in chunks.
            probe_s: Who waits on a channel and hears nothing for so long asks whether its server is there.
            silence_s: A channel's server that says nothing for so long is gone.
        """
        if _CALLER_ID.fullmatch(caller_id) is None:
            raise ValueError("cannot use this caller id: it must be 1-64 letters, digits, - or _")
        self._nc = nc
        self._caller_id = caller_id
        self._clock = clock
        self._reply_within_s = reply_within_s
        self._answer_bytes_max = answer_bytes_max
        self._probe_s = probe_s
        self._silence_s = silence_s
        self._inbox = ""
        self._pending: dict[str, pending.Pending] = {}
        self._by_out: dict[str, pending.Pending] = {}
        self._subscriptions: list[nats_subscription.Subscription] = []
        self._takes_chunks = False
        self._unwatch: safeclient.Listener | None = None

    async def open(self) -> None:
        """Listen for replies."""
        self._inbox = self._nc.new_inbox() + "."
        self._subscriptions.append(await self._nc.subscribe(self._inbox + "*", cb=self._on_reply))
        self._unwatch = self._nc.watch(lost=self._on_lost)

    async def close(self) -> None:
        """Listen no more; what is still under way ends with `ShuttingDown`."""
        self._inbox = ""
        if self._unwatch is not None:
            self._unwatch()
        for asked in list(self._pending.values()):
            asked.fail(errors.ShuttingDown())
            if asked.channel is not None:
                asked.channel.break_off(errors.ShuttingDown())
        for subscription in self._subscriptions:
            try:
                await subscription.unsubscribe()
            except nats.errors.Error as error:
                log.debug("unsubscribe_failed", reason=str(error))

    @property
    def in_flight(self) -> int:
        """Requests under way and channels open."""
        return len(self._pending)

    async def ask(
        self,
        subject: str,
        method: str,
        params: bytes,
        *,
        ends_at: float,
        call_id: str,
        traceparent: str,
        blob: channels.Data = b"",
    ) -> Answer:
        """Send one request and wait for its reply.

        Args:
            subject: Whom to ask.
            method: What.
            params: Encoded.
            ends_at: Loop time at which the whole call is over.
            call_id: Of the side effect, or empty.
            traceparent: W3C trace context, or empty.
            blob: Raw bytes beside the parameters.

        Raises:
            errors.Fault: As `caller.Caller.call` says.

        Cancellation: safe; a late reply is dropped.
        """
        asked = await self._register(subject)
        try:
            answer = await self._reply(asked, method, params, ends_at, call_id, traceparent, blob)
            if isinstance(answer, rpc.Stream):
                incoming = self._incoming(asked)
                incoming.expect(answer)
                return await incoming.whole(ends_at)
            return answer
        finally:
            await self._forget(asked)

    @contextlib.asynccontextmanager
    async def channel(
        self,
        subject: str,
        method: rpc.ChannelMethod[Any, channels.ResultT, channels.EndT],
        params: bytes,
        *,
        ends_at: float,
        call_id: str,
        traceparent: str,
    ) -> AsyncIterator[channel_client.OpenChannel[channels.ResultT, channels.EndT]]:
        """Open a channel for the block; arguments and faults as of `ask`, `ends_at` is for the opening.

        Cancellation: safe; the server is told to stop.
        """
        if not subject.startswith(pending.TO_DAEMONS):
            raise ValueError(f"cannot open a channel to {subject}: only daemons serve them")
        asked = await self._register(subject)
        address = channel_client.Address(
            subject=subject,
            control=asked.control,
            caller=self._caller_id,
            request_id=asked.request_id,
            reply=self._inbox + asked.request_id,
        )
        channel = asked.channel = channel_client.OpenChannel(
            self._nc, address, method, probe_s=self._probe_s, silence_s=self._silence_s
        )
        try:
            channel.begin(await self._reply(asked, method.name, params, ends_at, call_id, traceparent, b""))
            yield channel
        finally:
            channel.close()
            await self._forget(asked)

    async def _reply(
        self,
        asked: pending.Pending,
        method: str,
        params: bytes,
        ends_at: float,
        call_id: str,
        traceparent: str,
        blob: channels.Data,
    ) -> Answer | rpc.Stream:
        loop = asyncio.get_running_loop()
        wait_s = max(0.0, min(ends_at - loop.time(), self._reply_within_s))
        body = _encode(
            rpc.Request(
                method=method,
                params=msgspec.Raw(params),
                id=asked.request_id,
                # Nobody waits for a reply beyond it, so nobody should begin.
                deadline_ms=self._clock.now_ms() + int(wait_s * 1000),
                caller=self._caller_id,
                call_id=call_id,
                traceparent=traceparent,
            )
        )
        if blob:
            body = blobs.join(body, blob)
        _check_size(method, body)
        # A timer and no asyncio.timeout: half the cost, on a path where microseconds are counted.
        timer = loop.call_later(wait_s, asked.expire, method, wait_s)
        try:
            await self._nc.publish(asked.subject, body, reply=self._inbox + asked.request_id)
            return asked.read(await asked.reply)
        except _NOT_SENT as error:
            raise errors.BusDown(f"cannot ask {method}: the bus is not connected") from error
        finally:
            timer.cancel()  # from here on every chunk or frame buys time

    async def _register(self, subject: str) -> pending.Pending:
        if not self._nc.is_connected or not self._inbox:
            raise errors.BusDown("cannot ask: the bus is not connected")
        asked = pending.Pending(subject, secrets.token_hex(_TOKEN_BYTES))
        if subject.startswith(pending.TO_DAEMONS):
            sandbox = pending.sandbox(subject)
            asked.control = subjects.rpc_control(sandbox)
            asked.out = subjects.out(sandbox, self._caller_id, asked.request_id)
            if not self._takes_chunks:
                await self._take_chunks()
            self._by_out[asked.out] = asked
        self._pending[asked.request_id] = asked
        return asked

    async def _take_chunks(self) -> None:
        # Before the request, on the same connection: no chunk is too early. Not every caller has the right.
        self._takes_chunks = True
        subject = subjects.out_for(self._caller_id)
        self._subscriptions.append(await self._nc.subscribe(subject, cb=self._on_chunk))

    async def _forget(self, asked: pending.Pending) -> None:
        del self._pending[asked.request_id]
        self._by_out.pop(asked.out, None)
        if asked.wants_stop:
            await self._credit(asked.control, asked.request_id, stop=True)

    def _incoming(self, asked: pending.Pending) -> chunks.Incoming:
        if asked.incoming is None:
            asked.incoming = chunks.Incoming(self._answer_bytes_max)
        return asked.incoming

    async def _on_reply(self, message: nats_msg.Msg) -> None:
        asked = self._pending.get(message.subject[len(self._inbox) :])
        if asked is not None:
            asked.take(message)

    async def _on_chunk(self, message: nats_msg.Msg) -> None:
        # Looked up by the whole subject: only the machine that was asked may publish on it.
        asked = self._by_out.get(message.subject)
        if asked is None:
            # Of a call given up before its first chunk; told so, the sender stops at once.
            sandbox, request_id = subjects.sandbox_of(message.subject), subjects.request_of(message.subject)
            await self._credit(subjects.rpc_control(sandbox), request_id, stop=True)
        elif asked.channel is not None:
            await asked.channel.on_message(message.data)
        else:
            incoming = self._incoming(asked)
            incoming.add(message.data)
            if not incoming.is_over:
                await self._credit(asked.control, asked.request_id, received=incoming.received)

    async def _credit(self, control: str, request_id: str, *, received: int = 0, stop: bool = False) -> None:
        await channel_client.credit(
            self._nc, control, self._caller_id, request_id, received=received, stop=stop
        )

    def _on_lost(self) -> None:
        # The server forgets where replies go as soon as the connection is gone: they will not come.
        for asked in list(self._pending.values()):
            asked.fail(errors.NoAnswer("no answer: the bus broke off while waiting"))
            if asked.channel is not None:
                asked.channel.break_off(
                    errors.ChannelBroken("the channel broke off: the bus is not connected")
                )


def _check_size(method: str, body: bytes) -> None:
    if len(body) > rpc.REQUEST_BYTES_MAX:
        raise errors.PayloadTooLarge(
            f"cannot ask {method}: the request has {len(body)} bytes, the limit is {rpc.REQUEST_BYTES_MAX}",
            data={"sizeBytes": len(body), "limitBytes": rpc.REQUEST_BYTES_MAX},
        )
