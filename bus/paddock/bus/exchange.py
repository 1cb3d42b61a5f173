"""One request and its reply, over one connection and one inbox.

Every request ends: by its reply, by its deadline, or at once when nobody listens or the bus is not connected.
For `caller`, which makes calls of exchanges; nobody else sends requests.
"""

import asyncio
import functools
import re
import secrets
from typing import Final

import msgspec
import nats.errors
from nats.aio import msg as nats_msg
from nats.aio import subscription as nats_subscription

from paddock.bus import chunks, clock, logs, safeclient
from paddock.contracts import errors, ids, rpc, subjects

log = logs.get(__name__)

_TOKEN_BYTES = 9
"""Of a request id, also the last token of two subjects: nobody guesses where an answer is awaited."""
_CALLER_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_TO_DAEMONS = "rpc."
_NOBODY_LISTENS = "503"
_NOT_SENT: Final = (
    nats.errors.OutboundBufferLimitError,
    nats.errors.ConnectionClosedError,
    nats.errors.ConnectionDrainingError,
)

Answer = msgspec.Raw | bytes | rpc.Running
"""An encoded result, or that there is none yet."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(rpc.Response).decode


@functools.lru_cache(maxsize=4096)
def _sandbox(subject: str) -> ids.SandboxId:
    return subjects.sandbox_of(subject)


class _Pending:
    """One request under way. `reply` gets the message, or the fault that ends the waiting."""

    __slots__ = ("control", "incoming", "out", "reply", "request_id", "subject")

    def __init__(self, subject: str, request_id: str) -> None:
        self.subject = subject
        self.request_id = request_id
        self.out = ""
        self.control = ""
        self.incoming: chunks.Incoming | None = None
        loop = asyncio.get_running_loop()
        self.reply: asyncio.Future[nats_msg.Msg | errors.Fault] = loop.create_future()

    def expire(self, method: str, wait_s: float) -> None:
        self.fail(errors.NoAnswer(f"no answer to {method} within {wait_s:.1f} s"))

    def fail(self, fault: errors.Fault) -> None:
        if not self.reply.done():
            self.reply.set_result(fault)
        if self.incoming is not None:
            self.incoming.fail(fault)


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
    ) -> None:
        """Make one; it is used between `open` and `close`.

        Args:
            nc: A connection that buffers nothing while it is down.
            caller_id: A token of subjects, unique in the fleet.
            clock: For deadlines.
            reply_within_s: A reply that takes longer will never come.
            answer_bytes_max: Of an answer in chunks.
        """
        if _CALLER_ID.fullmatch(caller_id) is None:
            raise ValueError("cannot use this caller id: it must be 1-64 letters, digits, - or _")
        self._nc = nc
        self._caller_id = caller_id
        self._clock = clock
        self._reply_within_s = reply_within_s
        self._answer_bytes_max = answer_bytes_max
        self._inbox = ""
        self._pending: dict[str, _Pending] = {}
        self._by_out: dict[str, _Pending] = {}
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
        for pending in list(self._pending.values()):
            pending.fail(errors.ShuttingDown())
        for subscription in self._subscriptions:
            try:
                await subscription.unsubscribe()
            except nats.errors.Error as error:
                log.debug("unsubscribe_failed", reason=str(error))

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._pending)

    async def ask(
        self, subject: str, method: str, params: bytes, *, ends_at: float, call_id: str, traceparent: str
    ) -> Answer:
        """Send one request and wait for its reply.

        Args:
            subject: Whom to ask.
            method: What.
            params: Encoded.
            ends_at: Loop time at which the whole call is over.
            call_id: Of the side effect, or empty.
            traceparent: W3C trace context, or empty.

        Raises:
            errors.Fault: As `caller.Caller.call` says.

        Cancellation: safe; a late reply is dropped.
        """
        loop = asyncio.get_running_loop()
        wait_s = max(0.0, min(ends_at - loop.time(), self._reply_within_s))
        request_id = secrets.token_hex(_TOKEN_BYTES)
        body = _encode(
            rpc.Request(
                method=method,
                params=msgspec.Raw(params),
                id=request_id,
                # Nobody waits for a reply beyond it, so nobody should begin.
                deadline_ms=self._clock.now_ms() + int(wait_s * 1000),
                caller=self._caller_id,
                call_id=call_id,
                traceparent=traceparent,
            )
        )
        _check_size(method, body)
        pending = await self._register(subject, request_id)
        # A timer and no asyncio.timeout: half the cost, on a path where microseconds are counted.
        timer = loop.call_later(wait_s, pending.expire, method, wait_s)
        try:
            await self._nc.publish(subject, body, reply=self._inbox + request_id)
            answer = self._read(pending, await pending.reply)
            if isinstance(answer, chunks.Incoming):
                timer.cancel()  # from here on every chunk buys time
                return await answer.whole(ends_at)
        except _NOT_SENT as error:
            raise errors.BusDown(f"cannot ask {method}: the bus is not connected") from error
        else:
            return answer
        finally:
            timer.cancel()
            await self._forget(pending)

    async def _register(self, subject: str, request_id: str) -> _Pending:
        if not self._nc.is_connected or not self._inbox:
            raise errors.BusDown("cannot ask: the bus is not connected")
        pending = _Pending(subject, request_id)
        if subject.startswith(_TO_DAEMONS):
            sandbox = _sandbox(subject)
            pending.control = subjects.rpc_control(sandbox)
            pending.out = subjects.out(sandbox, self._caller_id, request_id)
            if not self._takes_chunks:
                await self._take_chunks()
            self._by_out[pending.out] = pending
        self._pending[request_id] = pending
        return pending

    async def _take_chunks(self) -> None:
        # Before the request, on the same connection: no chunk is too early. Not every caller has the right.
        self._takes_chunks = True
        subject = subjects.out_for(self._caller_id)
        self._subscriptions.append(await self._nc.subscribe(subject, cb=self._on_chunk))

    async def _forget(self, pending: _Pending) -> None:
        del self._pending[pending.request_id]
        self._by_out.pop(pending.out, None)
        if pending.incoming is not None and not pending.incoming.is_whole:
            await self._credit(pending.control, pending.request_id, stop=True)

    def _read(self, pending: _Pending, reply: nats_msg.Msg | errors.Fault) -> Answer | chunks.Incoming:
        if isinstance(reply, errors.Fault):
            raise reply
        if reply.headers and reply.headers.get("Status") == _NOBODY_LISTENS:
            raise _nobody(pending.subject)
        try:
            response = _decode(reply.data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise errors.BadAnswer("cannot read the answer: it is no response", detail=str(error)) from error
        if not isinstance(response.result, msgspec.UnsetType):
            return response.result
        if response.error is not None:
            raise errors.from_wire(response.error.code, response.error.message, response.error.data)
        if response.running is not None:
            return response.running
        if response.stream is not None:
            incoming = self._incoming(pending)
            incoming.expect(response.stream)
            return incoming
        raise errors.BadAnswer("cannot read the answer: it has neither a result nor an error")

    def _incoming(self, pending: _Pending) -> chunks.Incoming:
        if pending.incoming is None:
            pending.incoming = chunks.Incoming(self._answer_bytes_max)
        return pending.incoming

    async def _on_reply(self, message: nats_msg.Msg) -> None:
        pending = self._pending.get(message.subject[len(self._inbox) :])
        if pending is not None and not pending.reply.done():
            pending.reply.set_result(message)

    async def _on_chunk(self, message: nats_msg.Msg) -> None:
        # Looked up by the whole subject: only the machine that was asked may publish on it.
        pending = self._by_out.get(message.subject)
        if pending is None:
            # Of a call given up before its first chunk; told so, the sender stops at once.
            sandbox, request_id = subjects.sandbox_of(message.subject), subjects.request_of(message.subject)
            await self._credit(subjects.rpc_control(sandbox), request_id, stop=True)
            return
        incoming = self._incoming(pending)
        incoming.add(message.data)
        if not incoming.is_over:
            await self._credit(pending.control, pending.request_id, received=incoming.received)

    async def _credit(self, control: str, request_id: str, *, received: int = 0, stop: bool = False) -> None:
        params = rpc.CreditParams(caller=self._caller_id, request_id=request_id, received=received, stop=stop)
        request = rpc.Request(method=rpc.CREDIT.name, params=msgspec.Raw(_encode(params)))
        try:
            await self._nc.publish(control, _encode(request))
        except nats.errors.Error as error:
            log.debug("credit_lost", reason=str(error))

    def _on_lost(self) -> None:
        # The server forgets where replies go as soon as the connection is gone: they will not come.
        for pending in list(self._pending.values()):
            pending.fail(errors.NoAnswer("no answer: the bus broke off while waiting"))


def _check_size(method: str, body: bytes) -> None:
    if len(body) > rpc.REQUEST_BYTES_MAX:
        raise errors.PayloadTooLarge(
            f"cannot ask {method}: the request has {len(body)} bytes, the limit is {rpc.REQUEST_BYTES_MAX}",
            data={"sizeBytes": len(body), "limitBytes": rpc.REQUEST_BYTES_MAX},
        )


def _nobody(subject: str) -> errors.Fault:
    if subject.startswith(_TO_DAEMONS):
        return errors.MachineOffline()
    return errors.NoAnswer(f"nobody serves {subject}; nothing was done")
