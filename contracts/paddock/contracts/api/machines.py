"""Machines: asking for one, seeing how it is, running commands and moving files in it."""

from typing import Annotated, Literal

import pydantic

from paddock.contracts import daemon, ids, phases
from paddock.contracts.api import base

CLIENT_TOKEN_PATTERN = r"^[A-Za-z0-9_.:-]{1,128}$"  # noqa: S105 - a pattern
LABEL_NAME_PATTERN = r"^[A-Za-z0-9](?:[A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?$"
LOG_TAIL_BYTES = 64 * 1024
LOG_TAIL_MAX_BYTES = 400 * 1024
"""What fits in one answer of the provisioner, with JSON's escapes to spare."""
FILE_MAX_BYTES = 640 * 1024
"""Of `content` in one write: with its envelope it must fit in one message of the bus."""
READ_MAX_BYTES = 8 * 1024 * 1024
"""Read by one call; of a larger file, read parts."""
STDIN_MAX_BYTES = 512 * 1024

Phases = Annotated[list[phases.Phase], pydantic.Field(min_length=1, max_length=len(phases.Phase))]
LabelName = Annotated[str, pydantic.Field(pattern=LABEL_NAME_PATTERN)]
LabelValue = Annotated[str, pydantic.Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Labels = Annotated[
    dict[LabelName, LabelValue],
    pydantic.Field(max_length=64, description="For finding machines."),
]
FilePath = Annotated[
    str,
    pydantic.Field(
        min_length=1,
        max_length=4096,
        pattern=base.NO_NUL,
        description="Absolute, or under ~ (the home).",
    ),
]
CallId = Annotated[
    str,
    pydantic.Field(
        pattern=ids.CALL_ID_PATTERN,
        description="Your name for this one action: asked again with it, a running one is joined and a finished "
        "one answers again; it never acts twice. Made for you unless given.",
    ),
]


class MachineCreate(base.Params):
    """Ask for a machine; it exists when this answers and becomes active on its own."""

    project_id: base.ProjectId
    name: Annotated[base.Label | None, pydantic.Field(description="For people; the id unless given.")] = None
    client_token: Annotated[
        str | None,
        pydantic.Field(
            pattern=CLIENT_TOKEN_PATTERN,
            description="Unique in the project: the same token and request answer the same machine, another "
            "request is a conflict.",
        ),
    ] = None
    labels: Labels = pydantic.Field(default_factory=dict)
    env: Annotated[base.Variables, pydantic.Field(description="The machine's own variables.")] = (
        pydantic.Field(default_factory=dict)
    )
    wait_s: base.WaitS = 0.0


class MachineGet(base.Params):
    """How one machine is."""

    machine_id: base.MachineId


class MachineList(base.Params):
    """Machines, newest first; deleted ones only when their phase is asked for."""

    project_id: base.ProjectId | None = None
    phases: Phases | None = None
    cursor: base.PageCursor | None = None
    limit: base.PageLimit = base.PAGE_SIZE


class MachineDelete(base.Params):
    """Delete a machine, from every phase. Asked again, it answers the same."""

    machine_id: base.MachineId
    wait_s: base.WaitS = 0.0


class MachineRetry(base.Params):
    """Start a failed machine anew: the next generation in the same HOME."""

    machine_id: base.MachineId
    wait_s: base.WaitS = 0.0


class MachineHistory(base.Params):
    """Everything that was done for the machine, and when."""

    machine_id: base.MachineId


class MachineExec(base.Params):
    """Run one command in an active machine; no shell. A non-zero exit code is a result, not an error."""

    machine_id: base.MachineId
    command: base.Command
    cwd: FilePath = "~"
    env: Annotated[base.Variables, pydantic.Field(description="On top of the machine's variables.")] = (
        pydantic.Field(default_factory=dict)
    )
    timeout_s: Annotated[
        float,
        pydantic.Field(
            gt=0,
            le=daemon.EXEC_TIMEOUT_MAX_S,
            description="Seconds until the whole process group is killed.",
        ),
    ] = daemon.EXEC_TIMEOUT_S
    stdin: Annotated[str, pydantic.Field(max_length=STDIN_MAX_BYTES)] = ""
    output_limit_bytes: Annotated[
        int,
        pydantic.Field(
            ge=0,
            le=4 * 1024 * 1024,
            description="Of stdout and of stderr: more is cut out of the middle.",
        ),
    ] = daemon.OUTPUT_LIMIT_BYTES
    call_id: CallId | None = None


class MachineWriteFile(base.Params):
    """Write one small file; parents are made."""

    machine_id: base.MachineId
    path: FilePath
    content: Annotated[str, pydantic.Field(max_length=FILE_MAX_BYTES)]
    encoding: Annotated[
        Literal["utf-8", "base64"], pydantic.Field(description="How `content` is written.")
    ] = "utf-8"
    mode: Annotated[int, pydantic.Field(ge=0, le=0o7777, description="Permission bits.")] = 0o644
    call_id: CallId | None = None


class MachineReadFile(base.Params):
    """Read a file or a part of it."""

    machine_id: base.MachineId
    path: FilePath
    offset: Annotated[int, pydantic.Field(ge=0, le=2**62)] = 0
    length: Annotated[
        int | None,
        pydantic.Field(
            ge=0, le=READ_MAX_BYTES, description="To the end unless given; 0 answers size and digest."
        ),
    ] = None


class MachineLogs(base.Params):
    """The end of the boot log of the machine's newest sandbox; readable before the machine is active."""

    machine_id: base.MachineId
    tail_bytes: Annotated[int, pydantic.Field(ge=1, le=LOG_TAIL_MAX_BYTES)] = LOG_TAIL_BYTES


class Reason(base.Result):
    """Why a machine failed, or is being made anew."""

    stage: Annotated[str, pydantic.Field(description="What was being done.")]
    kind: Annotated[str, pydantic.Field(description="The kind of error, for programs.")]
    message: Annotated[str, pydantic.Field(description="A sentence.")]
    data: dict[str, pydantic.JsonValue] = pydantic.Field(default_factory=dict)
    log_tail: Annotated[str, pydantic.Field(description="The last lines of the log.")] = ""


class EnvVersions(base.Result):
    """The machine has its newest variables when both are the same."""

    desired: Annotated[int, pydantic.Field(description="The version it should have.")]
    applied: Annotated[int, pydantic.Field(description="The version confirmed in it; 0 before the first.")]


class Machine(base.Result):
    """One machine as it is now."""

    id: base.MachineId
    project_id: base.ProjectId
    name: str
    phase: Annotated[phases.Phase, pydantic.Field(description="How far it is.")]
    phase_since: base.Moment
    reason: Annotated[Reason | None, pydantic.Field(description="Why, when there is more to say.")] = None
    generation: Annotated[int, pydantic.Field(description="Counts its sandboxes from 1.")]
    connection: Annotated[phases.Connection, pydantic.Field(description="Whether its daemon is on the bus.")]
    last_seen_at: base.Moment | None = None
    health: Annotated[phases.Health, pydantic.Field(description="Whether an active machine is well.")]
    health_reason: str = ""
    env: EnvVersions
    labels: dict[str, str] = pydantic.Field(default_factory=dict)
    created_at: base.Moment
    active_at: Annotated[base.Moment | None, pydantic.Field(description="When it last became active.")] = None
    limit_at: Annotated[base.Moment | None, pydantic.Field(description="When this phase fails it.")] = None
    provider: str
    sandbox_id: Annotated[str, pydantic.Field(description="The newest: `<machine>-<generation>`.")]


class MachinePage(base.Result):
    """Some machines; `nextCursor` is null on the last page."""

    machines: list[Machine]
    next_cursor: str | None = None


class HistoryRun(base.Result):
    """One run of one stage."""

    generation: int
    lane: phases.Lane
    stage: phases.Stage
    run: Annotated[int, pydantic.Field(description="Counts up with every known failure.")]
    attempts: Annotated[int, pydantic.Field(description="Known failures; a takeover after a crash is none.")]
    owner: Annotated[str, pydantic.Field(description="The process that worked on it last.")] = ""
    queued_at: base.Moment
    started_at: base.Moment | None = None
    finished_at: base.Moment | None = None
    took_ms: Annotated[int | None, pydantic.Field(description="From started to finished.")] = None
    outcome: Annotated[str, pydantic.Field(description="Empty while it is unfinished.")] = ""
    error: Annotated[str, pydantic.Field(description="The last failure, in a sentence.")] = ""
    error_kind: str = ""
    caused_by: Annotated[str, pydantic.Field(description="The event that asked for it.")] = ""


class HistoryMove(base.Result):
    """One phase entered."""

    sequence: int
    generation: int
    phase: phases.Phase
    at: base.Moment
    after_ms: Annotated[int | None, pydantic.Field(description="Since the move before.")] = None
    actor: str = ""
    reason: Reason | None = None


class HistorySandbox(base.Result):
    """One generation as the provider and the daemon saw it."""

    sandbox_id: str
    generation: int
    node: str | None = None
    called_at: Annotated[base.Moment | None, pydantic.Field(description="The provider was first called.")] = (
        None
    )
    external_at: Annotated[base.Moment | None, pydantic.Field(description="The provider answered.")] = None
    ready_at: Annotated[base.Moment | None, pydantic.Field(description="The daemon's first ready.")] = None
    gone_at: Annotated[base.Moment | None, pydantic.Field(description="Positively gone.")] = None
    end_reason: str = ""


class History(base.Result):
    """What happened to one machine, oldest first in each list."""

    machine_id: base.MachineId
    moves: list[HistoryMove]
    runs: list[HistoryRun]
    sandboxes: list[HistorySandbox]


class ExecResult(base.Result):
    """How a command ended."""

    exit_code: Annotated[int | None, pydantic.Field(description="Null when a signal ended it.")]
    signal: Annotated[str | None, pydantic.Field(description="The signal's name.")] = None
    timed_out: Annotated[bool, pydantic.Field(description="We killed it at its timeout.")] = False
    stdout: str
    stderr: str
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    stdout_omitted_bytes: Annotated[int, pydantic.Field(description="Cut out of the middle.")] = 0
    stderr_omitted_bytes: Annotated[int, pydantic.Field(description="Cut out of the middle.")] = 0
    took_ms: int = 0


class WriteFileResult(base.Result):
    """What was written."""

    path: Annotated[str, pydantic.Field(description="The absolute path.")]
    bytes_written: int
    sha256: str


class ReadFileResult(base.Result):
    """`size` and `sha256` are of the whole file."""

    path: Annotated[str, pydantic.Field(description="The absolute path.")]
    size: int
    sha256: str
    mode: int
    offset: int = 0
    content: str = ""
    encoding: Annotated[
        Literal["utf-8", "base64"], pydantic.Field(description="Text when all of it is UTF-8, else base64.")
    ] = "utf-8"


class Logs(base.Result):
    """The end of a boot log."""

    sandbox_id: str
    text: str
    size_bytes: Annotated[int, pydantic.Field(description="Of the whole log.")]
