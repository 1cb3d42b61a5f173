"""A method and what carries it out.

For whoever serves methods on the bus: bind each with `handler`, give them to a `responder.Responder` as a
`table`.
"""

import asyncio
import dataclasses
import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from paddock.bus import channels
from paddock.contracts import ids, rpc, subjects

ParamsT = TypeVar("ParamsT", bound=msgspec.Struct)
ResultT = TypeVar("ResultT", bound=msgspec.Struct)
EndT = TypeVar("EndT", bound=msgspec.Struct)
ValueT = TypeVar("ValueT")
Outcome = msgspec.Struct | msgspec.Raw
"""A result, or one already encoded (a stored answer)."""


class StillRunning(Exception):
    """Raised by a handler: the call goes on, the caller may ask `call.wait` with this id."""

    def __init__(self, call_id: str) -> None:
        super().__init__(call_id)
        self.call_id = call_id


class CallContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler may know about one call beside its parameters."""

    subject: str
    caller: str
    call_id: str
    deadline_ms: int
    traceparent: str
    request_id: str
    held_s: float
    blob_view: bytes | memoryview = b""
    """The blob as it lies in the message."""

    @property
    def blob(self) -> bytes:
        """The raw bytes that came beside the parameters; copied at each look."""
        return bytes(self.blob_view)

    @property
    def sandbox(self) -> ids.SandboxId:
        """The sandbox in the subject.

        Raises:
            errors.InvalidRequest: The subject has none.
        """
        return subjects.sandbox_of(self.subject)

    async def hold(self, done: "asyncio.Future[ValueT]", call_id: str = "") -> ValueT:
        """The value of `done` if it comes while a reply may be held.

        Raises:
            StillRunning: It did not; `call_id` (that of this call when empty) goes on.

        Cancellation: safe; `done` is not cancelled.
        """
        await asyncio.wait({done}, timeout=self.held_s)
        if not done.done():
            raise StillRunning(call_id or self.call_id)
        return done.result()


@dataclasses.dataclass(frozen=True, slots=True)
class Opening:
    """A channel about to be opened; nothing has begun."""

    begin: Callable[[], Awaitable[channels.Opened[Any, Any]]]


@dataclasses.dataclass(frozen=True, slots=True)
class Handler:
    """One method and what carries it out; made by `handler` or `channel`."""

    name: str
    decode: Callable[[msgspec.Raw], Any]
    work: Callable[[Any, CallContext], Any]
    is_channel: bool = False


def handler(
    method: rpc.Method[ParamsT, ResultT],
    work: Callable[[ParamsT, CallContext], "Awaitable[ResultT | msgspec.Raw] | ResultT | msgspec.Raw"],
) -> Handler:
    """Bind a method to what carries it out.

    Args:
        method: What may be asked.
        work: An async function, which runs as a task; or a plain one for what is quick, which runs at once
            and costs no
            task. It answers with the result, or with one already encoded.
    """
    return Handler(method.name, msgspec.json.Decoder(method.params).decode, work)


def channel(
    method: rpc.ChannelMethod[ParamsT, ResultT, EndT],
    begin: Callable[[ParamsT, CallContext], Awaitable[channels.Opened[ResultT, EndT]]],
) -> Handler:
    """Bind a method that opens a channel to what opens it.

    Args:
        method: What may be asked.
        begin: Runs as a task, within the caller's deadline or in vain; answers with the result and what then serves the
            channel. A fault it raises refuses the channel.
    """

    def work(params: ParamsT, context: CallContext) -> Opening:
        return Opening(functools.partial(begin, params, context))

    return Handler(method.name, msgspec.json.Decoder(method.params).decode, work, is_channel=True)


def table(*handlers: Handler) -> dict[str, Handler]:
    """The handlers by method name."""
    return {one.name: one for one in handlers}
