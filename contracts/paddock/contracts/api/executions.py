"""Commands that run exactly once and can be picked up again from anywhere: `machine.exec*`."""

from typing import Annotated, Literal

import pydantic

from paddock.contracts import executions, ids
from paddock.contracts.api import base, machines, streams

ExecId = Annotated[
    str,
    pydantic.Field(
        pattern=ids.CALL_ID_PATTERN,
        description="Your name for the command: started again with it, the same request answers the one that is there, "
        "another is a conflict; it never runs twice.",
    ),
]
Offset = Annotated[int, pydantic.Field(ge=0, le=2**62, description="In bytes, from the first one written.")]
Size = Annotated[int, pydantic.Field(ge=1, le=executions.TERMINAL_MAX)]


class MachineExecStart(base.Params):
    """Start a command; no shell. It goes on whoever goes away."""

    machine_id: base.MachineId
    id: Annotated[ExecId | None, pydantic.Field(description="Made for you unless given.")] = None
    command: base.Command
    cwd: machines.FilePath = "~"
    env: Annotated[base.Variables, pydantic.Field(description="On top of the machine's variables.")] = (
        pydantic.Field(default_factory=dict)
    )
    user: Annotated[
        str, pydantic.Field(max_length=64, description="A name or number; the daemon's own unless given.")
    ] = ""
    stdin: Annotated[bool, pydantic.Field(description="Keep its stdin open; it is empty otherwise.")] = False
    pty: Annotated[bool, pydantic.Field(description="Give it a terminal.")] = False
    columns: Size = 80
    rows: Size = 24
    timeout_s: Annotated[
        float | None,
        pydantic.Field(
            gt=0,
            le=executions.TIMEOUT_MAX_S,
            description="Seconds until its whole process group is killed; no limit unless given.",
        ),
    ] = None
    background: Annotated[
        bool,
        pydantic.Field(
            description="Answer as soon as it runs; otherwise wait for its end, some 20 s at most."
        ),
    ] = False
    output_limit_bytes: Annotated[
        int,
        pydantic.Field(
            ge=executions.SPOOL_LIMIT_MIN_BYTES,
            le=1 << 40,
            description="Of stdout and of stderr that is kept; beyond it the oldest bytes go.",
        ),
    ] = executions.SPOOL_LIMIT_BYTES


class ExecNamed(base.Params):
    """Names one command of one machine."""

    machine_id: base.MachineId
    id: ExecId


class MachineExecAttach(ExecNamed):
    """Follow its output on a stream, from any offset; frames DATA and STDERR carry absolute offsets."""

    stdout_offset: Annotated[
        Offset | None,
        pydantic.Field(description="From the first byte kept unless given; of a terminal, its last 1 MiB."),
    ] = None
    stderr_offset: Offset | None = None


class MachineExecWrite(ExecNamed):
    """Bytes for its stdin."""

    offset: Annotated[
        Offset | None,
        pydantic.Field(description="Their place in all of stdin; what was taken before is not taken twice."),
    ] = None
    content: Annotated[str, pydantic.Field(max_length=executions.STDIN_BYTES_MAX * 4 // 3 + 4)] = ""
    encoding: Literal["utf-8", "base64"] = "utf-8"
    eof: Annotated[bool, pydantic.Field(description="Close stdin after them.")] = False


class MachineExecResize(ExecNamed):
    """Change the size of its terminal."""

    columns: Size
    rows: Size


class MachineExecSignal(ExecNamed):
    """Send a signal to its whole process group."""

    signal: Annotated[
        str, pydantic.Field(min_length=1, max_length=20, description="A name such as SIGTERM or TERM.")
    ]


class MachineExecWait(ExecNamed):
    """How it is: when it has ended, and after `waitS` however it then is."""

    wait_s: base.WaitS = 0.0


class MachineExecList(base.Params):
    """Commands of a machine, newest first; ended ones for a day."""

    machine_id: base.MachineId
    running_only: bool = False
    limit: Annotated[int, pydantic.Field(ge=1, le=executions.LIST_MAX)] = 100
    before: Annotated[str, pydantic.Field(max_length=128, description="The last id of the page before.")] = ""


class MachineExecOutput(ExecNamed):
    """A part of what it wrote."""

    stream: executions.StreamName = "stdout"
    offset: Offset = 0
    length: Annotated[int, pydantic.Field(ge=0, le=executions.OUTPUT_BYTES_MAX)] = executions.OUTPUT_BYTES_MAX


class MachineExecSummary(ExecNamed):
    """The first and the last half of `limitBytes` of stdout and of stderr, and what was left out counted."""

    limit_bytes: Annotated[int, pydantic.Field(ge=0, le=executions.OUTPUT_BYTES_MAX)] = 16 * 1024


class ExecFailure(base.Result):
    """Why it could not be started."""

    code: int
    message: str


class Execution(base.Result):
    """One command as it is now. An ended one has `exitCode`, or `signal`, or `lost`: its end was not seen."""

    id: str
    command: list[str]
    state: Annotated[
        executions.State,
        pydantic.Field(
            description="`failed`: not started. `unknown`: whether it was started cannot be said."
        ),
    ]
    began_at: base.Moment
    ended_at: base.Moment | None = None
    pid: int = 0
    pty: bool = False
    exit_code: int | None = None
    signal: Annotated[str | None, pydantic.Field(description="The signal that ended it.")] = None
    timed_out: Annotated[bool, pydantic.Field(description="We killed it at its timeout.")] = False
    lost: bool = False
    stdout_bytes: Annotated[int, pydantic.Field(description="Written so far.")] = 0
    stderr_bytes: int = 0
    stdout_from: Annotated[int, pydantic.Field(description="The first byte still kept.")] = 0
    stderr_from: int = 0
    stdin_bytes: Annotated[int, pydantic.Field(description="Taken so far.")] = 0
    stalled: Annotated[str, pydantic.Field(description="Why its output has to wait just now.")] = ""
    failure: ExecFailure | None = None


class ExecAttached(streams.StreamOpened):
    """The stream begins at these offsets. It ends with the execution as its result."""

    execution: Execution
    stdout_offset: int
    stderr_offset: int


class ExecWritten(base.Result):
    """All of stdin taken so far; less than was offered when the command does not read."""

    accepted: int


class Executions(base.Result):
    """Some commands of a machine."""

    executions: list[Execution]
    is_last: bool = True


class ExecOutput(base.Result):
    """A part of the output."""

    offset: int
    content: str
    encoding: Literal["utf-8", "base64"]
    first_offset: Annotated[int, pydantic.Field(description="The first byte still kept.")]
    size_bytes: Annotated[int, pydantic.Field(description="All that was written so far.")]
    is_ended: bool


class ExecSummary(base.Result):
    """How it is, and the beginning and the end of what it wrote."""

    execution: Execution
    stdout: str
    stderr: str
    stdout_omitted_bytes: int = 0
    stderr_omitted_bytes: int = 0
