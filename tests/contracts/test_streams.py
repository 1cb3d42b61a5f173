"""Binary messages of /ws: what is a frame, and what is none."""

import pytest

from paddock.contracts import errors
from paddock.contracts.api import streams


@pytest.mark.parametrize("kind", list(streams.FrameKind))
@pytest.mark.parametrize("payload", [b"", b"\x00\xff", b"x" * streams.FRAME_BYTES_MAX])
def test_a_frame_is_read_as_it_was_made(kind: streams.FrameKind, payload: bytes) -> None:
    message = streams.frame(kind, 2**32 - 1, 2**63, payload)

    read = streams.split_frame(message)

    assert (*read[:3], bytes(read[3])) == (kind, 2**32 - 1, 2**63, payload)


def test_a_frame_is_thirteen_bytes_and_its_payload() -> None:
    message = streams.frame(streams.FrameKind.STDERR, 7, 256, b"oh")

    assert message == b"\x02" + b"\x00\x00\x00\x07" + b"\x00\x00\x00\x00\x00\x00\x01\x00" + b"oh"


@pytest.mark.parametrize(
    "message", [b"", b"\x01", b"\x01" + bytes(11), b"\x00" + bytes(12), b"\x09" + bytes(12)]
)
def test_what_is_no_frame_is_refused(message: bytes) -> None:
    with pytest.raises(errors.InvalidRequest, match="cannot read this binary message"):
        streams.split_frame(message)


def test_a_frame_that_is_too_large_is_refused() -> None:
    message = streams.frame(streams.FrameKind.DATA, 1, 0, bytes(streams.FRAME_BYTES_MAX + 1))

    with pytest.raises(errors.PayloadTooLarge, match="cannot take a frame") as refused:
        streams.split_frame(message)

    assert refused.value.data == {"stream": 1, "limitBytes": streams.FRAME_BYTES_MAX}
