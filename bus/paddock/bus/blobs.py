"""Raw bytes beside a request: how a message that carries a blob is put together and taken apart.

A message with a blob is a zero byte, the length of its JSON envelope (4 bytes, big-endian), the envelope, the blob. No
JSON begins with a zero byte, so a message without a blob stays the plain JSON it always was, and costs nothing more.
"""

import struct
from typing import Final

from paddock.contracts import errors

MARK: Final = b"\x00"
"""What a message with a blob begins with."""
_HEAD: Final = struct.Struct(">BI")


def join(envelope: bytes, blob: bytes | memoryview) -> bytes:
    """One message of both."""
    return b"".join((_HEAD.pack(0, len(envelope)), envelope, blob))


def split(message: bytes) -> tuple[memoryview, memoryview]:
    """The envelope and the blob of a message that begins with `MARK`, not copied.

    Raises:
        errors.InvalidRequest: It is shorter than it says.
    """
    if len(message) >= _HEAD.size:
        _, length = _HEAD.unpack_from(message)
        end = _HEAD.size + length
        if len(message) >= end:
            view = memoryview(message)
            return view[_HEAD.size : end], view[end:]
    raise errors.InvalidRequest("cannot read the request: it is shorter than it says")
