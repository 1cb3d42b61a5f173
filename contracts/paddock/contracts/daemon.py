"""What can be asked of a daemon, and what a daemon asks of the registrar.

`tool.writeFile` and `tool.execCommand` are all a machine needs to become anything; the rest is seeing how it is.
"""

from typing import Annotated, Literal

import msgspec

from paddock.contracts import rpc

HEARTBEAT_S = 10.0
"""Between two heartbeats; a machine is offline after two were missed."""
EXEC_TIMEOUT_S = 120.0
EXEC_TIMEOUT_MAX_S = 24 * 3600.0
OUTPUT_LIMIT_BYTES = 256 * 1024
"""Of stdout and of stderr in one answer: the first and the last half of it, with what lies between counted."""
ENV_FILE = "~/.paddock/.env"
EXIT_STOP, EXIT_RESTART = 0, 75
"""Exit codes of `paddockd run` for its supervisor: end too; start me again at once. Any other: with back-off."""

Path = Annotated[
    str, msgspec.Meta(min_length=1, max_length=4096, description="Absolute, or under ~ (the home directory).")
]


class WriteFileParams(rpc.Wire, frozen=True):
    path: Path
    content: str
    encoding: Literal["utf-8", "base64"] = "utf-8"
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o7777, description="Permission bits.")] = 0o644


class WriteFileResult(rpc.Answer, frozen=True):
    path: str
    bytes_written: int
    sha256: str


class ReadFileParams(rpc.Wire, frozen=True):
    """`length` None is to the end; 0 answers size and digest and no content."""

    path: Path
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0
    length: Annotated[int, msgspec.Meta(ge=0)] | None = None


class ReadFileResult(rpc.Answer, frozen=True):
    """`sha256` and `size` are of the whole file; `content` is text when all of it is UTF-8, else base64."""

    path: str
    size: int
    sha256: str
    mode: int
    offset: int = 0
    content: str = ""
    encoding: Literal["utf-8", "base64"] = "utf-8"


class ExecCommandParams(rpc.Wire, frozen=True):
    """No shell. Environment: the daemon's base, then ~/.paddock/.env as it is now, then `env`."""

    command: Annotated[list[str], msgspec.Meta(min_length=1, max_length=4096)]
    cwd: str = "~"
    env: dict[str, str] = msgspec.field(default_factory=dict)
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=EXEC_TIMEOUT_MAX_S)] = EXEC_TIMEOUT_S
    output_limit_bytes: Annotated[int, msgspec.Meta(ge=0, le=4 * 1024 * 1024)] = OUTPUT_LIMIT_BYTES
    stdin: str = ""


class ExecCommandResult(rpc.Answer, frozen=True):
    """A non-zero exit code is a result. `exit_code` is None when a signal ended it; `timed_out` says whose."""

    exit_code: int | None
    stdout: str
    stderr: str
    signal: str | None = None
    timed_out: bool = False
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    stdout_omitted_bytes: int = 0
    stderr_omitted_bytes: int = 0
    took_ms: int = 0


class PingResult(rpc.Answer, frozen=True):
    boot_id: str
    now_ms: int


class VersionResult(rpc.Answer, frozen=True):
    version: str
    wire_version: int
    python: str


class CallParams(rpc.Wire, frozen=True):
    call_id: str


class CancelResult(rpc.Answer, frozen=True):
    """`was_running` is False when there was nothing left of the call to kill."""

    was_running: bool


class ReadyParams(rpc.Wire, frozen=True):
    """Said at every start until answered `ok`. `last_exit` is why the daemon before this one ended, when known."""

    boot_id: str
    wire_version: int
    daemon_version: str
    sent_at_ms: int
    last_exit: str = ""


ReadyAnswer = Literal["ok", "wait", "stop"]


class ReadyResult(rpc.Answer, frozen=True):
    """`ok`: recorded, stop repeating. `wait`: ask again later. `stop`: this sandbox is over; end with exit code 0."""

    answer: ReadyAnswer
    now_ms: int
    reason: str = ""


class Beat(rpc.Wire, frozen=True):
    """A heartbeat: core NATS, unanswered."""

    boot_id: str
    at_ms: int


WRITE_FILE = rpc.Method("tool.writeFile", WriteFileParams, WriteFileResult, has_side_effect=True)
READ_FILE = rpc.Method("tool.readFile", ReadFileParams, ReadFileResult)
EXEC_COMMAND = rpc.Method("tool.execCommand", ExecCommandParams, ExecCommandResult, has_side_effect=True)
PING = rpc.Method("daemon.ping", rpc.Empty, PingResult)
GET_VERSION = rpc.Method("daemon.getVersion", rpc.Empty, VersionResult)
CALL_WAIT = rpc.Method("call.wait", CallParams, rpc.Done)
"""Long-poll a call that answered `running`; the result is that of the call's own method."""
CALL_CANCEL = rpc.Method("call.cancel", CallParams, CancelResult)
"""Kill what is left of a call's process group; answered on the control subject."""
READY = rpc.Method("report.ready", ReadyParams, ReadyResult)
