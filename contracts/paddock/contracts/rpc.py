"""JSON-RPC 2.0 as it travels on the bus, and how a method is declared.

Beside the standard members a request carries its deadline, its caller and, when it has a side effect, a call id. They are
members of the envelope and not NATS headers, which cost a fifth to a third of a round trip (docs/decisions).
"""

import dataclasses
import enum
from typing import Any, Generic, TypeVar

import msgspec

VERSION = "2.0"
WIRE_VERSION = 1
"""Of the protocol between the control plane and the daemon. A daemon says its own in `report.ready`."""
HELD_REPLY_S = 25.0
"""No reply is held longer: replies over the accounts' threshold vanish silently. A longer call answers `running`."""
REPLY_BYTES_MAX = 512 * 1024
"""A larger answer goes in chunks on `out.<S>.<caller>.<call>`."""
REQUEST_BYTES_MAX = 960 * 1024
"""An encoded request; the server's max_payload is 1 MiB and does not count headers."""
CHUNK_BYTES = 128 * 1024
CHUNK_WINDOW = 4
"""Chunks in flight before the receiver must give credit; more would block other calls on the same connection."""

FRAME_BYTES = CHUNK_BYTES
"""Of the payload of one frame of a channel, at most."""
FRAME_WINDOW = CHUNK_WINDOW

ParamsT = TypeVar("ParamsT", bound=msgspec.Struct)
ResultT = TypeVar("ResultT", bound=msgspec.Struct)
EndT = TypeVar("EndT", bound=msgspec.Struct)


class Wire(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True
):
    """Base of everything asked or answered on the bus: camelCase on the wire, unknown members refused."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of results: members a newer peer adds are passed over."""


class Empty(Wire, frozen=True):
    """No parameters."""


class Done(Answer, frozen=True):
    """No result but that it was done."""


@dataclasses.dataclass(frozen=True, slots=True)
class Method(Generic[ParamsT, ResultT]):
    """A method of a bus peer. One with a side effect must be called with a call id."""

    name: str
    params: type[ParamsT]
    result: type[ResultT]
    has_side_effect: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class ChannelMethod(Generic[ParamsT, ResultT, EndT]):
    """A method that opens a channel: its result says that it is open, frames follow, and `end` is the last thing said.

    Only daemons serve channels. Opening one has no side effect that matters when it is opened twice.
    """

    name: str
    params: type[ParamsT]
    result: type[ResultT]
    end: type[EndT]


class Request(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    omit_defaults=True,
    tag_field="jsonrpc",  # a member with a default would be left out; a tag is always there
    tag=VERSION,
):
    """One call. `deadline_ms` is unix time; a responder refuses to begin after it."""

    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | int | None = None
    deadline_ms: int = 0
    caller: str = ""
    call_id: str = ""
    traceparent: str = ""


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    code: int
    message: str
    data: dict[str, Any] = msgspec.field(default_factory=dict)


class Running(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The call goes on; ask `call.wait` with its call id."""

    call_id: str


class Stream(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The result follows in chunks on the caller's `out` subject."""

    size_bytes: int
    chunks: int
    sha256: str


class Response(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    omit_defaults=True,
    tag_field="jsonrpc",
    tag=VERSION,
):
    """Exactly one of `result`, `error`, `running` and `stream` is set."""

    id: str | int | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: ErrorBody | None = None
    running: Running | None = None
    stream: Stream | None = None


class CreditParams(Wire, frozen=True):
    """What the receiver of a stream has had so far, in chunks; `stop` when it wants no more of it."""

    caller: str
    request_id: str
    received: int = 0
    stop: bool = False


CREDIT = Method("stream.credit", CreditParams, Done)
"""A notification on the control subject; nobody answers it."""


class FrameParams(Wire, frozen=True):
    """One frame from the opener of a channel to its server; the payload is the request's blob.

    `index` counts the frames of this direction from 0: a gap or a repetition shows.
    """

    caller: str
    request_id: str
    index: int
    kind: int
    offset: int = 0


FRAME = Method("channel.frame", FrameParams, Done)
"""A notification on the call subject; only a `KEEPALIVE` is answered."""


class FrameKind(enum.IntEnum):
    """What a frame of a channel is. Those below `KEEPALIVE` carry a payload and their meaning is the method's."""

    DATA = 1
    """Also: standard output."""
    STDERR = 2
    KEEPALIVE = 250
    """Says that the sender is there, and is answered at once; its index is that of the next frame. To the opener it carries
    in `offset` what `CREDIT` does."""
    CREDIT = 251
    """To the opener: `offset` frames of its direction have been taken in. Neither it nor `KEEPALIVE` is counted."""
    EOF = 252
    """Nothing more comes in this direction."""
    END = 253
    """The last frame, from the server: the payload is a `Response` with the channel's end or an error."""
