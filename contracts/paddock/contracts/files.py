"""Files in a machine: `file.*` of a daemon. Any size, any bytes, whole or not at all.

Paths are absolute or under ~, without `..`. Reading is a channel; writing is any number of parts with their offsets and
then one `commit`, so both go on where they stopped.
"""

from typing import Annotated, Final, Literal

import msgspec

from paddock.contracts import daemon, ids, rpc

PART_BYTES: Final = rpc.FRAME_BYTES
PARTS_AT_ONCE: Final = rpc.FRAME_WINDOW
"""Of one upload: more would block other calls on the same connection."""
LIST_MAX: Final = 5000
FIND_MAX: Final = 5000
UPLOAD_KEPT_S: Final = 24 * 3600.0
"""An upload nobody went on with for so long is removed."""
ABSENT: Final = "absent"
"""As `expected_sha256`: nothing may be there."""

Offset = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Mode = Annotated[int, msgspec.Meta(ge=0, le=0o7777, description="Permission bits.")]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Expected = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64}|absent)$")]
"""What must be there now, or the call is a `conflict`: a file with this digest, or `absent`."""
UploadId = Annotated[str, msgspec.Meta(pattern=ids.CALL_ID_PATTERN)]
Kind = Literal["file", "directory", "symlink", "other"]


class FileInfo(rpc.Answer, frozen=True):
    """What a path is. `version` changes whenever the content may have changed; `sha256` only where it was asked for.

    `name` is the last part of the path; where its bytes are no UTF-8 it shows them replaced and `name_base64` has them.
    """

    path: str
    name: str
    kind: Kind
    size: int
    mode: int
    modified_at_ms: int
    version: str
    user: str = ""
    group: str = ""
    target: Annotated[str, msgspec.Meta(description="Of a symbolic link.")] = ""
    name_base64: str = ""
    sha256: str = ""


class ReadParams(rpc.Wire, frozen=True):
    """`length` None is to the end. With `version`, a file that is another by now is a `conflict`."""

    path: daemon.Path
    offset: Offset = 0
    length: Offset | None = None
    version: str = ""


class Opened(rpc.Answer, frozen=True):
    """The file as it was when it was opened; what is read is all of that one file."""

    info: FileInfo


class ReadEnd(rpc.Answer, frozen=True):
    """`size` is of the whole file; `sha256` too: empty where the end was not reached, or from the middle with `length`."""

    size: int
    sha256: str = ""


class WriteParams(rpc.Wire, frozen=True):
    """One part of an upload: the blob, at `offset`. What was received before is not taken twice; a gap is `bad_offset`.

    An empty part at offset 0 begins an upload, or says how far it is. Nothing shows at `path` until the commit.
    """

    path: daemon.Path
    upload: UploadId
    offset: Offset = 0
    parents: Annotated[bool, msgspec.Meta(description="Make the folders above that are missing.")] = False


class WriteResult(rpc.Answer, frozen=True):
    received: int


class CommitParams(rpc.Wire, frozen=True):
    """Check size and digest, flush to disk and rename over `path`. `mode` None keeps that of the file there, else 0644."""

    path: daemon.Path
    upload: UploadId
    size: Offset
    sha256: Sha256
    mode: Mode | None = None
    expected_sha256: Expected | None = None


class AbortParams(rpc.Wire, frozen=True):
    upload: UploadId


class StatParams(rpc.Wire, frozen=True):
    """`digest` also reads the whole file for its sha256. `follow`: a symbolic link's target, not the link."""

    path: daemon.Path
    digest: bool = False
    follow: bool = True


class ListParams(rpc.Wire, frozen=True):
    """What is in a folder, by name. `after` is the last name of the page before."""

    path: daemon.Path
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIST_MAX)] = 1000
    after: str = ""


class ListResult(rpc.Answer, frozen=True):
    entries: list[FileInfo]
    is_last: bool = True


class MkdirParams(rpc.Wire, frozen=True):
    """With `parents`, missing folders above are made and a folder that exists is no error."""

    path: daemon.Path
    mode: Mode = 0o755
    parents: bool = False


class MoveParams(rpc.Wire, frozen=True):
    """Rename. Without `overwrite`, something at `to` is `path_exists`. `expected_sha256` is of what is moved."""

    path: daemon.Path
    to: daemon.Path
    overwrite: bool = False
    expected_sha256: Expected | None = None


class RemoveParams(rpc.Wire, frozen=True):
    """A link is removed, never what it points at. A folder with something in it needs `recursive`."""

    path: daemon.Path
    recursive: bool = False
    expected_sha256: Expected | None = None


class ChmodParams(rpc.Wire, frozen=True):
    path: daemon.Path
    mode: Mode
    recursive: bool = False


class FindParams(rpc.Wire, frozen=True):
    """Below `path`, which must be a folder; links are not followed. `pattern` is a glob for names, such as *.py."""

    path: daemon.Path
    pattern: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] = "*"
    kind: Kind | None = None
    depth_max: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    limit: Annotated[int, msgspec.Meta(ge=1, le=FIND_MAX)] = 1000


class FindResult(rpc.Answer, frozen=True):
    """`is_complete` False: there is more than `limit`. `unreadable` folders were passed over."""

    entries: list[FileInfo]
    is_complete: bool = True
    unreadable: int = 0


READ = rpc.ChannelMethod("file.read", ReadParams, Opened, ReadEnd)
"""Frames DATA with their offsets."""
WRITE = rpc.Method("file.write", WriteParams, WriteResult)
COMMIT = rpc.Method("file.commit", CommitParams, FileInfo, has_side_effect=True)
ABORT = rpc.Method("file.abort", AbortParams, rpc.Done)
STAT = rpc.Method("file.stat", StatParams, FileInfo)
LIST = rpc.Method("file.list", ListParams, ListResult)
MKDIR = rpc.Method("file.mkdir", MkdirParams, FileInfo, has_side_effect=True)
MOVE = rpc.Method("file.move", MoveParams, FileInfo, has_side_effect=True)
REMOVE = rpc.Method("file.remove", RemoveParams, rpc.Done, has_side_effect=True)
CHMOD = rpc.Method("file.chmod", ChmodParams, FileInfo, has_side_effect=True)
FIND = rpc.Method("file.find", FindParams, FindResult)
