"""Streams beside the calls of one `GET /ws` connection: bytes both ways, in binary messages.

A call that opens a stream answers its number. Every binary message is one frame: kind (1 byte), stream (4), offset (8), all
big-endian, then the payload. Text messages stay JSON-RPC. The gateway says `stream.taken` when it has passed on what a
client sent, and `stream.ended` as the last thing about a stream.
"""

import enum
import struct
from typing import Annotated, Any, Final

import pydantic

from paddock.contracts import errors
from paddock.contracts.api import base

TAKEN_NOTIFICATION: Final = "stream.taken"
ENDED_NOTIFICATION: Final = "stream.ended"
FRAME_BYTES_MAX: Final = 128 * 1024
"""Of one payload, either way."""
WINDOW_BYTES: Final = 4 * FRAME_BYTES_MAX
"""A client sends no more than this beyond what was taken."""
STREAMS_MAX: Final = 64
"""Open at once on one connection."""
_HEAD: Final = struct.Struct(">BIQ")


class FrameKind(enum.IntEnum):
    DATA = 1
    """Also: standard output."""
    STDERR = 2
    EOF = 3
    """Nothing more comes in this direction; no payload."""


class StreamOpened(base.Result):
    """A stream on this connection."""

    stream: Annotated[int, pydantic.Field(ge=1, description="Its number in frames and notifications.")]


class StreamClose(base.Params):
    """Stop it; what it follows goes on in the machine."""

    stream: Annotated[int, pydantic.Field(ge=1, le=2**32 - 1)]


class TakenNotification(base.Result):
    """The parameters of `stream.taken`: everything before `offset` went on to the machine."""

    stream: int
    offset: int


class StreamFault(base.Result):
    """An error object."""

    code: int
    message: str
    data: dict[str, Any] = pydantic.Field(default_factory=dict)


class EndedNotification(base.Result):
    """The parameters of `stream.ended`: how it ended, which is the method's to say, or why it could not go on."""

    stream: int
    result: dict[str, Any] | None = None
    error: StreamFault | None = None


def frame(kind: FrameKind, stream: int, offset: int, payload: bytes | memoryview = b"") -> bytes:
    """One binary message."""
    return b"".join((_HEAD.pack(kind, stream, offset), payload))


def split_frame(message: bytes) -> tuple[FrameKind, int, int, memoryview]:
    """Kind, stream, offset and payload of a binary message.

    Raises:
        errors.InvalidRequest: It is no frame.
        errors.PayloadTooLarge: It is one, of the stream in `data`.
    """
    try:
        kind, stream, offset = _HEAD.unpack_from(message)
        known = FrameKind(kind)
    except (struct.error, ValueError) as error:
        raise errors.InvalidRequest("cannot read this binary message: it is no frame of a stream") from error
    payload = memoryview(message)[_HEAD.size :]
    if len(payload) > FRAME_BYTES_MAX:
        raise errors.PayloadTooLarge(
            f"cannot take a frame of more than {FRAME_BYTES_MAX} bytes",
            data={"stream": stream, "limitBytes": FRAME_BYTES_MAX},
        )
    return known, stream, offset, payload
