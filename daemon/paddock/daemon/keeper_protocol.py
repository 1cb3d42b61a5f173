"""What the daemon and the keeper of commands say to each other, over a socket in `$PADDOCK_HOME`.

A message is its header's length and its blob's length (`>II`), the header as JSON, the blob. Only the standard library.

The daemon asks `{"n": 7, "do": …}`; the keeper answers each with the same `n`, not always in order:

- `start {id, digest, argv, env, cwd, uid, gid, groups, pty, stdin, timeoutS, limitBytes, beganAtMs, namespace}`: `env` is
  whole; `uid` null for the keeper's own; `pty` is null or `{columns, rows}`; `beganAtMs` is the daemon's clock, which the
  end's time is counted from. → `{pid, ticks}` when it runs. Errors: `exists` (its folder is there; nothing was done),
  `invalid {what}` (`argv`, `env` or `cwd` cannot be given to a process, or half of `user` is missing; nothing was done),
  `disk {errno}` (its record could not be written; nothing was done), `failed {what, errno}` (it could not be started,
  which its record says too).
- `write {id, offset, eof}` + blob: bytes for stdin → `{accepted, closed}` when all are in the pipe, or after `WRITE_S`, or
  when nobody reads any more (`closed`). `offset` null appends. Errors: `unknown`, `not_running`, `closed`,
  `bad_offset {sizeBytes}`.
- `resize {id, columns, rows}` → `{}`. Errors: `unknown`, `not_running`, `no_terminal`.
- `signal {id, number}` → `{}`, sent to the whole group. Errors: `unknown`, `not_running`, `permission`.
- `watch {id}` → as `list` says of it; from then on this connection hears `grew` of it. Errors: `unknown`.
- `unwatch {id}` → `{}`.
- `list {id?}` → `{executions: {id: {state, pid, ticks, stdin, isStdinOpen, stdout, stderr, stalled}}}`: what it keeps at
  this moment. `state` is `starting`, `running` or `ended`: an ended one is there while grandchildren hold its pipes, with
  its `end` as it was told.
- `ping` → `{pid}`.

An error is `{"n": 7, "error": {"kind", …}}`; a request that is none has kind `bad_request`.

Without `n` the keeper tells every connection `{"is": "ended", id, …}`, or `failed`, with the members of the record's line,
which is on disk by then unless the disk is full; and those who watch `{"is": "grew", id, stdout, stderr, stalled}`: totals
that are on disk already. A connection that reads slowly hears fewer `grew`, with newer totals.
"""

import json
import struct
from collections.abc import Iterator, Mapping

SOCKET_NAME, LOCK_NAME, FOLDER_NAME = "keeper.sock", "keeper.lock", "exec"
"""Below `$PADDOCK_HOME`."""
EXIT_TAKEN = 73
"""Of a keeper that found another one at work."""
HEADER_BYTES_MAX = 8 * 1024 * 1024
"""Arguments and an environment together are at most 6 MiB on Linux."""
BLOB_BYTES_MAX = 1024 * 1024
WRITE_S = 10.0
"""How long a `write` waits for a command that does not read."""
_LENGTHS = struct.Struct(">II")

Header = dict[str, object]


class BrokenError(Exception):
    """What came is no message; the connection is of no more use."""


def encode(header: Mapping[str, object], blob: "bytes | memoryview" = b"") -> bytes:
    """One message as bytes."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"".join((_LENGTHS.pack(len(text), len(blob)), text, blob))


class Decoder:
    """Messages out of a stream of bytes, however it is cut."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: "bytes | memoryview") -> Iterator[tuple[Header, bytes]]:
        """The messages that are whole now: headers and blobs.

        Raises:
            BrokenError: What came is no message.
        """
        self._bytes += data
        while len(self._bytes) >= _LENGTHS.size:
            header_size, blob_size = _LENGTHS.unpack_from(self._bytes)
            if header_size > HEADER_BYTES_MAX or blob_size > BLOB_BYTES_MAX:
                raise BrokenError("a message is too long")
            blob_at = _LENGTHS.size + header_size
            if len(self._bytes) < blob_at + blob_size:
                return
            header = _header(self._bytes[_LENGTHS.size : blob_at])
            blob = bytes(self._bytes[blob_at : blob_at + blob_size])
            del self._bytes[: blob_at + blob_size]
            yield header, blob


def _header(text: bytearray) -> Header:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise BrokenError("a header is not JSON") from None
    if not isinstance(header, dict):
        raise BrokenError("a header is no object")
    return header
