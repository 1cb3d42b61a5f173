"""Ask a peer on the bus and wait for its answer.

Whoever calls sees one await, however the answer comes: at once, in chunks, or by long-poll from a call that
takes longer than a reply may be held. A peer that is not there is known at once, and so is a bus that is
down; what is asked of a bus that is down is never sent later. Every wait ends by the caller's `timeout_s`.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from paddock.bus import channel_client, channels, clock, exchange, safeclient
from paddock.contracts import daemon, errors, ids, rpc

ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""Of one answer in chunks: what one machine may make a service keep in memory."""
REPLY_GRACE_S = 10.0
"""Beyond the time a reply may be held: the peer's own load and the way back."""
LOST_CONTACT_S = 30.0
"""How long a call known to run is asked for in vain; a daemon that lost its connection comes back."""
POLL_AGAIN_S = 0.25
_AWAY: Final = (
    errors.NoAnswer,
    errors.MachineOffline,
    errors.BusDown,
    errors.ShuttingDown,
    errors.TooManyInFlight,
)
"""Says nothing about the call itself, only that its peer cannot be asked now."""

ParamsT = TypeVar("ParamsT", bound=msgspec.Struct)
ResultT = TypeVar("ResultT", bound=msgspec.Struct)
EndT = TypeVar("EndT", bound=msgspec.Struct)

_encode = msgspec.json.Encoder().encode


class Caller:
    """Asks over one connection; any number of calls at once. Use it as an async context manager."""

    def __init__(
        self,
        nc: safeclient.SafeClient,
        *,
        caller_id: str,
        clock: clock.Clock,
        held_reply_s: float = rpc.HELD_REPLY_S,
        reply_grace_s: float = REPLY_GRACE_S,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
        probe_s: float = channels.PROBE_S,
        silence_s: float = channels.SILENCE_S,
    ) -> None:
        """Make one.

        Args:
            nc: A connection that buffers nothing while it is down (`pending_size=0`).
            caller_id: A token of subjects, unique in the fleet: a service's name and something random.
            clock: For deadlines, which the peer judges by its own.
            held_reply_s: How long peers hold a reply before they answer `running`.
            reply_grace_s: A reply that takes so much longer was lost, with a connection of the peer's for
                example.
            answer_bytes_max: A larger answer is refused.
            probe_s: Who waits on a channel and hears nothing for so long asks whether its server is there.
            silence_s: A channel whose server says nothing for so long is broken.
        """
        self._clock = clock
        self._exchange = exchange.Exchange(
            nc,
            caller_id=caller_id,
            clock=clock,
            reply_within_s=held_reply_s + reply_grace_s,
            answer_bytes_max=answer_bytes_max,
            probe_s=probe_s,
            silence_s=silence_s,
        )

    async def __aenter__(self) -> Self:
        await self._exchange.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exchange.close()

    @property
    def in_flight(self) -> int:
        """Requests under way and channels open."""
        return self._exchange.in_flight

    async def call(
        self,
        subject: str,
        method: rpc.Method[ParamsT, ResultT],
        params: ParamsT,
        *,
        timeout_s: float,
        call_id: str = "",
        traceparent: str = "",
        blob: channels.Data = b"",
    ) -> ResultT:
        """Ask one peer and wait for its answer.

        Args:
            subject: From `contracts.subjects`.
            method: What is asked.
            params: At most `rpc.REQUEST_BYTES_MAX` when encoded, with the blob.
            timeout_s: Seconds for the whole exchange, with all its polls and chunks.
            call_id: Names the side effect; asking again with the same id never does it twice. Made here when
                empty and the method has a side effect.
            traceparent: W3C trace context to pass on.
            blob: Raw bytes beside the parameters, for methods that take them.

        Raises:
            errors.MachineOffline: Nobody listens on an `rpc.*` subject; nothing was done.
            errors.BusDown: Not sent and never will be.
            errors.NoAnswer: Nobody answered in time; the peer may still have done the work.
            errors.DeadlineExceeded: It was still running at `timeout_s`, and runs on.
            errors.PayloadTooLarge: Not sent.
            errors.BadAnswer: The answer is not what the method promises.
            errors.Fault: Whatever the peer answered.

        Cancellation: safe. Nothing is left here; the peer is not told, and a call with a side effect goes on
            there, for whoever asks again with its call id.
        """
        if method.has_side_effect and not call_id:
            call_id = ids.new_ulid(self._clock.now_ms())
        ends_at = asyncio.get_running_loop().time() + timeout_s
        answer = await self._exchange.ask(
            subject,
            method.name,
            _encode(params),
            ends_at=ends_at,
            call_id=call_id,
            traceparent=traceparent,
            blob=blob,
        )
        if isinstance(answer, rpc.Running):
            answer = await self._poll(subject, answer.call_id, ends_at, traceparent)
        try:
            result: ResultT = channel_client.decoder(method.result).decode(answer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise errors.BadAnswer(f"cannot read the answer to {method.name}", detail=str(error)) from error
        return result

    def open(
        self,
        subject: str,
        method: rpc.ChannelMethod[ParamsT, ResultT, EndT],
        params: ParamsT,
        *,
        timeout_s: float,
        call_id: str = "",
        traceparent: str = "",
    ) -> contextlib.AbstractAsyncContextManager[channel_client.OpenChannel[ResultT, EndT]]:
        """Open a channel to a daemon for an `async with` block; leaving the block early tells its server to stop.

        Args:
            subject: A daemon's, from `contracts.subjects`.
            method: What is asked.
            params: At most `rpc.REQUEST_BYTES_MAX` when encoded.
            timeout_s: Seconds for the opening. What follows takes as long as both ends are there.
            call_id: As of `call`.
            traceparent: As of `call`.

        Raises:
            errors.Fault: As `call` says, when the block is entered; in it, what `channels.Channel` says.

        Cancellation: safe. Nothing is left here, and the server is told.
        """
        return self._exchange.channel(
            subject,
            method,
            _encode(params),
            ends_at=asyncio.get_running_loop().time() + timeout_s,
            call_id=call_id,
            traceparent=traceparent,
        )

    async def _poll(
        self, subject: str, call_id: str, ends_at: float, traceparent: str
    ) -> msgspec.Raw | bytes:
        """Ask for the end of a running call until it comes."""
        loop = asyncio.get_running_loop()
        method, params = daemon.CALL_WAIT.name, _encode(daemon.CallParams(call_id=call_id))
        lost_at: float | None = None
        while True:
            try:
                answer = await self._exchange.ask(
                    subject, method, params, ends_at=ends_at, call_id="", traceparent=traceparent
                )
            except _AWAY as fault:
                now = loop.time()
                lost_at = now if lost_at is None else lost_at
                if now + POLL_AGAIN_S >= ends_at:
                    raise errors.DeadlineExceeded(
                        "cannot wait longer for the call: it goes on", data={"callId": call_id}
                    ) from fault
                if now - lost_at >= LOST_CONTACT_S:
                    raise
                await asyncio.sleep(POLL_AGAIN_S)
            else:
                if not isinstance(answer, rpc.Running):
                    return answer
                lost_at = None
