"""A request under way, and how its reply is read.

For `exchange`, which keeps one of these for each request until it ends.
"""

import asyncio
import functools
from typing import Any, Final

import msgspec
from nats.aio import msg as nats_msg

from paddock.bus import channel_client, chunks
from paddock.contracts import errors, ids, rpc, subjects

TO_DAEMONS: Final = "rpc."
_NOBODY_LISTENS: Final = "503"

Answer = msgspec.Raw | bytes | rpc.Running
"""An encoded result, or that there is none yet."""

_decode = msgspec.json.Decoder(rpc.Response).decode


@functools.lru_cache(maxsize=4096)
def sandbox(subject: str) -> ids.SandboxId:
    """The sandbox in a subject that was used before."""
    return subjects.sandbox_of(subject)


class Pending:
    """One request under way. `reply` gets the message, or the fault that ends the waiting."""

    __slots__ = ("channel", "control", "incoming", "out", "reply", "request_id", "subject")

    def __init__(self, subject: str, request_id: str) -> None:
        self.subject = subject
        self.request_id = request_id
        self.out = ""
        self.control = ""
        self.incoming: chunks.Incoming | None = None
        self.channel: channel_client.OpenChannel[Any, Any] | None = None
        loop = asyncio.get_running_loop()
        self.reply: asyncio.Future[nats_msg.Msg | errors.Fault] = loop.create_future()

    @property
    def wants_stop(self) -> bool:
        """Whether its sender may still be at it, for nobody."""
        if self.channel is not None:
            return not self.channel.is_over
        return self.incoming is not None and not self.incoming.is_whole

    def expire(self, method: str, wait_s: float) -> None:
        """The time for a reply is over."""
        self.fail(errors.NoAnswer(f"no answer to {method} within {wait_s:.1f} s"))

    def fail(self, fault: errors.Fault) -> None:
        """End the waiting, and what is coming in."""
        if not self.reply.done():
            self.reply.set_result(fault)
        if self.incoming is not None:
            self.incoming.fail(fault)

    def take(self, message: nats_msg.Msg) -> None:
        """Take what came to our inbox."""
        if not self.reply.done():
            self.reply.set_result(message)
        elif self.channel is not None:
            self.channel.on_probed(is_nobody(message), message.data)

    def read(self, reply: nats_msg.Msg | errors.Fault) -> Answer | rpc.Stream:
        """What a reply says.

        Raises:
            errors.Fault: Which it says, or which it is.
        """
        if isinstance(reply, errors.Fault):
            raise reply
        if reply.headers and is_nobody(reply):
            raise self._nobody()
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
            return response.stream
        raise errors.BadAnswer("cannot read the answer: it has neither a result nor an error")

    def _nobody(self) -> errors.Fault:
        if self.subject.startswith(TO_DAEMONS):
            return errors.MachineOffline()
        return errors.NoAnswer(f"nobody serves {self.subject}; nothing was done")


def is_nobody(message: nats_msg.Msg) -> bool:
    """Whether it is the server's word that nobody listens."""
    return bool(message.headers) and message.headers.get("Status") == _NOBODY_LISTENS  # type: ignore[union-attr]
