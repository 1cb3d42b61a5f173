"""How the answer to one request goes out: in its reply, in chunks, or as a fault.

For `responder`, and for `channel_server`, whose channels begin with an answer. Never echoes headers, never writes to a
subject that is no inbox: the responder has looked at `Call.reply`.
"""

import re
from typing import Final

import msgspec
import nats.errors

from paddock.bus import chunks, faults, handlers, logs, safeclient
from paddock.contracts import errors, rpc, subjects

log = logs.get(__name__)

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)

_encode = msgspec.json.Encoder().encode


class Call(msgspec.Struct):
    """One accepted request."""

    request: rpc.Request
    reply: str
    context: handlers.CallContext

    @property
    def out(self) -> str:
        """Where more than a reply goes; empty when the caller has no such subject."""
        context = self.context
        # Both become tokens of a subject.
        if (
            context.subject.startswith("rpc.")
            and _TOKEN.fullmatch(context.caller) is not None
            and _TOKEN.fullmatch(context.request_id) is not None
        ):
            return subjects.out(context.sandbox, context.caller, context.request_id)
        return ""


class Replies:
    """Sends what a responder answers."""

    def __init__(self, nc: safeclient.SafeClient, sender: chunks.ChunkSender) -> None:
        self._nc = nc
        self._chunks = sender

    async def result(self, call: Call, body: bytes) -> bool:
        """Answer with an encoded result; False when it is too large for a reply and `stream` must send it.

        Raises:
            errors.PayloadTooLarge: It is too large for a reply and there is nowhere to send chunks.
        """
        if len(body) <= rpc.REPLY_BYTES_MAX:
            await self.send(call.reply, rpc.Response(id=call.request.id, result=msgspec.Raw(body)))
            return True
        if not call.out:
            raise errors.PayloadTooLarge(
                f"cannot answer {call.request.method}: the answer has {len(body)} bytes"
            )
        return False

    async def stream(self, call: Call, body: bytes) -> None:
        """Answer with a result in chunks, as fast as the caller takes them."""
        stream = await chunks.announce(body)
        if await self.send(call.reply, rpc.Response(id=call.request.id, stream=stream)):
            context = call.context
            await chunks.send_or_log(self._chunks, call.out, (context.caller, context.request_id), body)

    async def failure(self, call: Call, error: Exception) -> None:
        """Answer with what a handler raised."""
        await self.send(call.reply, response(call, error))

    async def send(self, reply: str, answer: rpc.Response) -> bool:
        """Publish a response; False when the bus is down or nobody wants one."""
        if not reply:
            return False
        try:
            await self._nc.publish(reply, _encode(answer))
        except nats.errors.Error as error:
            log.warning("answer_lost", reply=reply, reason=str(error))
            return False
        return True


def response(call: Call, error: Exception) -> rpc.Response:
    """What a handler raised, as an answer."""
    request = call.request
    if isinstance(error, handlers.StillRunning):
        return rpc.Response(id=request.id, running=rpc.Running(call_id=error.call_id))
    fault = faults.of(error, method=request.method, request_id=call.context.request_id)
    return faults.response(fault, request.id)
