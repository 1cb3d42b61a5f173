"""The opener's end of a channel.

It hears on its own `out` subject, says on the peer's call subject, and asks after a peer that has been silent while
somebody waits for it. Made by `exchange`; users get it from `Caller.open`.
"""

import asyncio
import functools
import struct
from typing import Any, Final, Generic

import msgspec
import nats.errors

from paddock.bus import blobs, channels, logs, safeclient
from paddock.contracts import errors, rpc

log = logs.get(__name__)

_END: Final = int(rpc.FrameKind.END)
_KEEPALIVE: Final = int(rpc.FrameKind.KEEPALIVE)
_CREDIT: Final = int(rpc.FrameKind.CREDIT)
_encode = msgspec.json.Encoder().encode
_decode_response = msgspec.json.Decoder(rpc.Response).decode


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where the two ends of one channel are found."""

    subject: str
    control: str
    caller: str
    request_id: str
    reply: str
    """Where an answer to a frame would come; also the server's word that nobody listens."""


@functools.cache
def decoder(result: type[Any]) -> msgspec.json.Decoder[Any]:
    """Of one type of result; made once."""
    return msgspec.json.Decoder(result)


async def credit(
    nc: safeclient.SafeClient,
    control: str,
    caller: str,
    request_id: str,
    *,
    received: int = 0,
    stop: bool = False,
) -> None:
    """Tell a sender what was received; a bus that is down is its own word.

    Cancellation: safe.
    """
    params = rpc.CreditParams(caller=caller, request_id=request_id, received=received, stop=stop)
    request = rpc.Request(method=rpc.CREDIT.name, params=msgspec.Raw(_encode(params)))
    try:
        await nc.publish(control, _encode(request))
    except nats.errors.Error as error:
        log.debug("credit_lost", reason=str(error))


class OpenChannel(channels.Channel, Generic[channels.ResultT, channels.EndT]):
    """A channel somebody opened: `opened` is the result, `end` the last word once it has come."""

    opened: channels.ResultT

    def __init__(
        self,
        nc: safeclient.SafeClient,
        address: Address,
        method: rpc.ChannelMethod[Any, channels.ResultT, channels.EndT],
        *,
        probe_s: float,
        silence_s: float,
    ) -> None:
        super().__init__()
        self._nc = nc
        self._address = address
        self._method = method
        self._probe_s = probe_s
        self._silence_s = silence_s
        self._probe_is_due = False
        self._end: channels.EndT | msgspec.UnsetType = msgspec.UNSET
        self.is_over = False
        """Whether the server has said its last word."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def end(self) -> channels.EndT:
        """How the server ended it; to be asked for after the iteration ended, or from `finish`."""
        if self._end is msgspec.UNSET:
            raise RuntimeError("the channel has not ended: await finish()")
        return self._end

    async def finish(self) -> channels.EndT:
        """Wait for the end of the channel; frames that come before it are passed over.

        Raises:
            errors.ChannelBroken: The server is gone.
            errors.Fault: With which the server ended the channel.

        Cancellation: safe.
        """
        while await self.receive() is not None:
            pass
        while self._end is msgspec.UNSET:
            if self._fault is not None:
                raise self._fault
            await self._until(self._came)
        return self._end

    # What follows is for the exchange.

    def begin(self, opened: Any) -> None:
        """It is open."""
        try:
            self.opened = decoder(self._method.result).decode(opened)
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError) as error:
            name = self._method.name
            raise errors.BadAnswer(f"cannot read the answer to {name}", detail=str(error)) from error
        self._heard_at = self._loop.time()
        self._timer = self._loop.call_later(self._probe_s, self._tick)

    def close(self) -> None:
        """It is used no more."""
        if self._timer is not None:
            self._timer.cancel()
        self.break_off(errors.ChannelBroken("the channel was closed here"))

    async def on_message(self, message: bytes) -> None:
        """Take in what the server published."""
        try:
            index, kind, offset = channels.HEAD.unpack_from(message)
        except struct.error:
            self.break_off(errors.BadAnswer("cannot go on with the channel: this is no frame of it"))
            return
        self._heard_at = self._loop.time()
        payload = memoryview(message)[channels.HEAD.size :]
        if kind not in {_END, _KEEPALIVE, _CREDIT}:
            self._accept(index, kind, offset, payload)
        elif self._fault is not None or not self._is_next(index):
            return
        elif kind == _END:
            self._on_end(payload)
        else:
            self._credited(offset)
            if kind == _KEEPALIVE:
                await self._confirm()

    def on_probed(self, is_nobody: bool, answer: bytes) -> None:
        """Take the answer to our asking whether the server is there."""
        if is_nobody:
            self.break_off(
                errors.ChannelBroken("the channel broke off: the machine's daemon is not connected")
            )
            return
        self._heard_at = self._loop.time()
        try:
            refused = _decode_response(answer).error is not None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            refused = True
        if refused:
            self.break_off(errors.ChannelBroken("the channel broke off: its server knows it no more"))

    def _on_end(self, body: memoryview) -> None:
        self.is_over = True
        try:
            response = _decode_response(body)
            if response.error is not None:
                error = response.error
                self.break_off(errors.from_wire(error.code, error.message, error.data))
                return
            if isinstance(response.result, msgspec.UnsetType):
                raise msgspec.ValidationError("it has neither a result nor an error")
            self._end = decoder(self._method.end).decode(response.result)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            name = self._method.name
            self.break_off(errors.BadAnswer(f"cannot read the end of {name}", detail=str(error)))
            return
        self._hears_no_more = True
        self.break_off(errors.ChannelBroken("cannot send: the channel has ended"))

    def _tick(self) -> None:
        now = self._loop.time()
        if self._fault is not None:
            return
        silent_s = now - self._heard_at
        if silent_s >= self._silence_s:
            self.break_off(
                errors.ChannelBroken(f"the channel broke off: nothing was heard for {silent_s:.0f} s")
            )
            return
        if silent_s >= self._probe_s:
            self._probe_is_due = True
            self._wake()
            silent_s = 0.0
        self._timer = self._loop.call_later(self._probe_s - silent_s, self._tick)

    async def _until(self, event: asyncio.Event) -> None:
        await super()._until(event)
        if self._probe_is_due and self._fault is None:
            self._probe_is_due = False
            await self._try(self._publish(self._sent, rpc.FrameKind.KEEPALIVE, 0, b"", self._address.reply))

    async def _put(self, index: int, kind: int, offset: int, data: channels.Data) -> None:
        await self._publish(index, kind, offset, data, "")

    async def _publish(self, index: int, kind: int, offset: int, data: channels.Data, reply: str) -> None:
        address = self._address
        params = rpc.FrameParams(
            caller=address.caller, request_id=address.request_id, index=index, kind=kind, offset=offset
        )
        request = rpc.Request(
            method=rpc.FRAME.name, params=msgspec.Raw(_encode(params)), caller=address.caller
        )
        await self._nc.publish(address.subject, blobs.join(_encode(request), data), reply=reply)

    async def _confirm(self) -> None:
        if self.is_over:
            return
        address = self._address
        await credit(self._nc, address.control, address.caller, address.request_id, received=self._taken)
