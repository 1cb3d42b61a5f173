"""Files in a machine, of any size: `machine.file*`. Reading and writing are streams; the rest are calls."""

from typing import Annotated, Literal

import pydantic

from paddock.contracts import files, ids
from paddock.contracts.api import base, machines, streams

Offset = Annotated[int, pydantic.Field(ge=0, le=2**62)]
Mode = Annotated[int, pydantic.Field(ge=0, le=0o7777, description="Permission bits.")]
Sha256 = Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]
Expected = Annotated[
    str,
    pydantic.Field(
        pattern=r"^([0-9a-f]{64}|absent)$",
        description="What must be there now, a digest or `absent`; else it is a conflict.",
    ),
]
UploadId = Annotated[
    str, pydantic.Field(pattern=ids.CALL_ID_PATTERN, description="Your name for one upload.")
]


class OnPath(base.Params):
    """Names one path of one machine."""

    machine_id: base.MachineId
    path: machines.FilePath


class MachineFileRead(OnPath):
    """Read a file or its end on a stream of DATA frames."""

    offset: Offset = 0
    length: Annotated[Offset | None, pydantic.Field(description="To the end unless given.")] = None
    version: Annotated[
        str,
        pydantic.Field(max_length=200, description="Of a reading to go on with: another file is a conflict."),
    ] = ""


class MachineFileWrite(OnPath):
    """Open a stream for DATA frames of an upload, from the offset answered on. `machine.fileCommit` puts it in place."""

    upload: UploadId
    parents: Annotated[bool, pydantic.Field(description="Make the folders above that are missing.")] = False


class MachineFileCommit(OnPath):
    """Check what was uploaded, flush it to disk and put it in place of whatever is there."""

    upload: UploadId
    size: Offset
    sha256: Sha256
    mode: Annotated[Mode | None, pydantic.Field(description="That of the file there, else 0644.")] = None
    expected_sha256: Expected | None = None
    call_id: machines.CallId | None = None


class MachineFileAbort(base.Params):
    """Give an upload up."""

    machine_id: base.MachineId
    upload: UploadId


class MachineFileStat(OnPath):
    """What a path is."""

    digest: Annotated[bool, pydantic.Field(description="Also its sha256, for which all of it is read.")] = (
        False
    )
    follow: Annotated[bool, pydantic.Field(description="A link's target, not the link.")] = True


class MachineFileList(OnPath):
    """What is in a folder, by name."""

    limit: Annotated[int, pydantic.Field(ge=1, le=files.LIST_MAX)] = 1000
    after: Annotated[
        str, pydantic.Field(max_length=1024, description="The last name of the page before.")
    ] = ""


class MachineFileMkdir(OnPath):
    """Make a folder."""

    mode: Mode = 0o755
    parents: Annotated[bool, pydantic.Field(description="Also those above; one that exists is no error.")] = (
        False
    )
    call_id: machines.CallId | None = None


class MachineFileMove(OnPath):
    """Rename."""

    to: machines.FilePath
    overwrite: bool = False
    expected_sha256: Expected | None = None
    call_id: machines.CallId | None = None


class MachineFileRemove(OnPath):
    """Remove a file, a link or a folder."""

    recursive: bool = False
    expected_sha256: Expected | None = None
    call_id: machines.CallId | None = None


class MachineFileChmod(OnPath):
    """Change permission bits."""

    mode: Mode
    recursive: bool = False
    call_id: machines.CallId | None = None


class MachineFileFind(OnPath):
    """Everything below a folder whose name fits; links are not followed."""

    pattern: Annotated[str, pydantic.Field(min_length=1, max_length=255, description="A glob for names.")] = (
        "*"
    )
    kind: files.Kind | None = None
    depth_max: Annotated[int, pydantic.Field(ge=1, le=1000)] = 100
    limit: Annotated[int, pydantic.Field(ge=1, le=files.FIND_MAX)] = 1000


class FileInfo(base.Result):
    """What a path is."""

    path: str
    name: str
    kind: Literal["file", "directory", "symlink", "other"]
    size: int
    mode: int
    modified_at: base.Moment
    version: Annotated[str, pydantic.Field(description="Another one whenever the content may be another.")]
    user: str = ""
    group: str = ""
    target: Annotated[str, pydantic.Field(description="Of a symbolic link.")] = ""
    name_base64: Annotated[str, pydantic.Field(description="Where the name is no UTF-8: its bytes.")] = ""
    sha256: str = ""


class FileReading(streams.StreamOpened):
    """The stream ends with `{size, sha256}` as its result; the digest is of the whole file when its end was reached."""

    info: FileInfo


class FileRead(base.Result):
    """The result of a reading's stream."""

    size: int
    sha256: str = ""


class FileWriting(streams.StreamOpened):
    """Go on from `received`; `stream.taken` says how far it is. EOF ends the stream with `{received}`."""

    received: int


class FileWritten(base.Result):
    """The result of a writing's stream."""

    received: int


class FilePage(base.Result):
    """Some of what is in a folder."""

    entries: list[FileInfo]
    is_last: bool = True


class FilesFound(base.Result):
    """What was found, and whether that is all."""

    entries: list[FileInfo]
    is_complete: bool = True
    unreadable: int = 0
