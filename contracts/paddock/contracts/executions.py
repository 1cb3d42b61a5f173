"""Commands in a machine that run exactly once and can always be picked up again: `exec.*` of a daemon.

The caller names the command. Its output is spooled on the machine's disk, its end is kept for a day; whoever knows the
name reads from any offset, as often as they like, while it runs and after. Neither a client nor a gateway, the bus or the
daemon takes anything of it along when it dies.
"""

from typing import Annotated, Final, Literal

import msgspec

from paddock.contracts import ids, rpc

KEPT_S: Final = 24 * 3600.0
"""How long an ended command and its output are kept."""
SPOOL_LIMIT_BYTES: Final = 1024 * 1024 * 1024
"""Of stdout and of stderr: beyond it the oldest bytes are given up."""
SPOOL_LIMIT_MIN_BYTES: Final = 64 * 1024
REPLAY_BYTES: Final = 1024 * 1024
"""What somebody who looks at a terminal late is shown of what was."""
OUTPUT_BYTES_MAX: Final = 256 * 1024
"""In one answer of `exec.output`: with JSON's escapes or base64 it is still one message."""
STDIN_BYTES_MAX: Final = 256 * 1024
"""In one `exec.write`."""
TIMEOUT_MAX_S: Final = 30 * 24 * 3600.0
LIST_MAX: Final = 500
TERMINAL_MAX: Final = 10_000
"""Columns and rows."""

ExecId = Annotated[
    str, msgspec.Meta(pattern=ids.CALL_ID_PATTERN, description="The caller's name for the command.")
]
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
StreamName = Literal["stdout", "stderr"]
State = Literal["running", "ended", "failed", "unknown"]
"""`failed`: it could not be started. `unknown`: it was accepted, and nobody can say whether it was started."""
Size = Annotated[int, msgspec.Meta(ge=1, le=TERMINAL_MAX)]


class StartParams(rpc.Wire, frozen=True):
    """No shell. Environment: the daemon's base, then ~/.paddock/.env as it is now, then `env`.

    `pty`: one terminal is stdin, stdout and stderr. `stdin`: it stays open for `exec.write`; without, it is empty.
    `background`: answer as soon as it runs; otherwise when it has ended, or how it is when a reply can be held no longer.
    `timeout_s` None is no limit; at its end the whole process group is killed.
    """

    id: ExecId
    command: Annotated[list[str], msgspec.Meta(min_length=1, max_length=4096)]
    cwd: str = "~"
    env: dict[str, str] = msgspec.field(default_factory=dict)
    user: Annotated[
        str, msgspec.Meta(max_length=64, description="A name or number; the daemon's own when empty.")
    ] = ""
    stdin: bool = False
    pty: bool = False
    columns: Size = 80
    rows: Size = 24
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=TIMEOUT_MAX_S)] | None = None
    background: bool = False
    output_limit_bytes: Annotated[int, msgspec.Meta(ge=SPOOL_LIMIT_MIN_BYTES, le=1 << 40)] = SPOOL_LIMIT_BYTES


class Failure(rpc.Answer, frozen=True):
    """Why it could not be started."""

    code: int
    message: str


class Execution(rpc.Answer, frozen=True):
    """One command as it is now.

    When `ended`, exactly one of these says how: `exit_code`; `signal` (with `timed_out` when we sent it at the time-out);
    `lost`: it ran and its end was not seen. `stdout_from` is the first byte still kept. A terminal's output is its stdout.
    `stalled`: why its output cannot be taken just now (the disk is full); it waits and loses nothing.
    """

    id: str
    command: list[str]
    state: State
    began_at_ms: int
    ended_at_ms: int = 0
    pid: int = 0
    pty: bool = False
    exit_code: int | None = None
    signal: str | None = None
    timed_out: bool = False
    lost: bool = False
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    stdout_from: int = 0
    stderr_from: int = 0
    stdin_bytes: int = 0
    stalled: str = ""
    failure: Failure | None = None


class ExecParams(rpc.Wire, frozen=True):
    id: ExecId


class AttachParams(rpc.Wire, frozen=True):
    """Where to go on. None: from the first byte kept; of a terminal, from `REPLAY_BYTES` before its end."""

    id: ExecId
    stdout_offset: Offset | None = None
    stderr_offset: Offset | None = None


class Attached(rpc.Answer, frozen=True):
    """The channel is open and begins at these offsets."""

    execution: Execution
    stdout_offset: int
    stderr_offset: int


class WriteParams(rpc.Wire, frozen=True):
    """Bytes for stdin: the blob. `offset` is their place in all of stdin: what was taken before is not taken twice.

    None appends. `eof` closes stdin after them; of a terminal, it is its end-of-file character.
    """

    id: ExecId
    offset: Offset | None = None
    eof: bool = False


class WriteResult(rpc.Answer, frozen=True):
    """`accepted` is all of stdin taken so far; less than was offered when the command does not read."""

    accepted: int


class ResizeParams(rpc.Wire, frozen=True):
    id: ExecId
    columns: Size
    rows: Size


class SignalParams(rpc.Wire, frozen=True):
    """Reaches the whole process group. `signal` is a name such as SIGTERM or TERM."""

    id: ExecId
    signal: Annotated[str, msgspec.Meta(min_length=1, max_length=20)]


class WaitParams(rpc.Wire, frozen=True):
    """Answered when it has ended, and after `wait_s` however it then is."""

    id: ExecId
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=rpc.HELD_REPLY_S)] = 20.0


class ListParams(rpc.Wire, frozen=True):
    """Newest first. `before` is the id of the last one of the page before."""

    running_only: bool = False
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIST_MAX)] = 100
    before: str = ""


class ListResult(rpc.Answer, frozen=True):
    executions: list[Execution]
    is_last: bool = True


class OutputParams(rpc.Wire, frozen=True):
    """A part of what is kept; fewer bytes than asked for at its end."""

    id: ExecId
    stream: StreamName = "stdout"
    offset: Offset = 0
    length: Annotated[int, msgspec.Meta(ge=0, le=OUTPUT_BYTES_MAX)] = OUTPUT_BYTES_MAX


class OutputResult(rpc.Answer, frozen=True):
    """`content` is text when all of it is UTF-8, else base64. `size_bytes` is all that was written so far."""

    offset: int
    content: str
    encoding: Literal["utf-8", "base64"]
    first_offset: int
    size_bytes: int
    is_ended: bool


class SummaryParams(rpc.Wire, frozen=True):
    """`limit_bytes` of stdout and of stderr: the first and the last half of it."""

    id: ExecId
    limit_bytes: Annotated[int, msgspec.Meta(ge=0, le=OUTPUT_BYTES_MAX)] = 16 * 1024


class SummaryResult(rpc.Answer, frozen=True):
    execution: Execution
    stdout: str
    stderr: str
    stdout_omitted_bytes: int = 0
    stderr_omitted_bytes: int = 0


START = rpc.Method("exec.start", StartParams, Execution)
"""Its own id makes it safe to repeat, so it needs no call id."""
ATTACH = rpc.ChannelMethod("exec.attach", AttachParams, Attached, Execution)
"""Frames DATA (stdout) and STDERR with their absolute offsets, then the end. Any number of viewers."""
WRITE = rpc.Method("exec.write", WriteParams, WriteResult)
RESIZE = rpc.Method("exec.resize", ResizeParams, rpc.Done)
SIGNAL = rpc.Method("exec.signal", SignalParams, rpc.Done)
WAIT = rpc.Method("exec.wait", WaitParams, Execution)
LIST = rpc.Method("exec.list", ListParams, ListResult)
OUTPUT = rpc.Method("exec.output", OutputParams, OutputResult)
SUMMARY = rpc.Method("exec.summary", SummaryParams, SummaryResult)
