"""NATS subjects: built and taken apart here and nowhere else.

`S` is a sandbox id. The rights of every user are stated over these patterns in `paddock.bus.accounts`.
"""

from paddock.contracts import errors, ids

EVENTS_STREAM = "EVENTS"
DEAD_LETTERS_STREAM = "DEADLETTERS"
EVENT_SUBJECTS = ("machine.*.*.*", "project.*.*.*")
"""What stream EVENTS stores: `<noun>.<fact>.<project>.<machine or all>`."""
MONITOR_SOURCE = "*.*.*.*"
MONITOR_TARGET = "mon.{{wildcard(3)}}.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(4)}}"
"""EVENTS republishes to these, so that a subscribe-only user sees one project's stored events."""
DEAD_LETTER_SUBJECTS = ("dlq.>",)
NUDGE_OUTBOX = "nudge.outbox"
"""Rows were committed to the outbox; best effort, carries nothing."""
REGISTRAR_CALL = "svc.registrar.call"
REPORT_CALLS = "report.*.call"
REPORT_BEATS = "report.*.beat"
ENROL_CALLS = "enrol.*.call"
DAEMON_QUEUE = "daemon"
"""Two daemons with one id (a cloned disk) share it, so a call runs once."""


def rpc_call(sandbox: ids.SandboxId) -> str:
    """Where services ask a daemon."""
    return f"rpc.{sandbox}.call"


def rpc_control(sandbox: ids.SandboxId) -> str:
    """Where services send a daemon what is cheap and must overtake calls: credit, cancel."""
    return f"rpc.{sandbox}.ctl"


def out(sandbox: ids.SandboxId, caller: str, call: str) -> str:
    """Where a daemon sends the chunks of one large answer to one caller."""
    return f"out.{sandbox}.{caller}.{call}"


def out_for(caller: str) -> str:
    """What one caller subscribes to for every daemon's chunks."""
    return f"out.*.{caller}.*"


def report_call(sandbox: ids.SandboxId) -> str:
    """Where a daemon asks the registrar."""
    return f"report.{sandbox}.call"


def report_beat(sandbox: ids.SandboxId) -> str:
    """Where a daemon's heartbeats go."""
    return f"report.{sandbox}.beat"


def provisioner_call(node: str) -> str:
    """Where the provisioner of one host answers about its sandboxes."""
    return f"svc.provisioner.{node}.call"


def event(event_type: str, project: ids.ProjectId, machine: ids.MachineId | None) -> str:
    """The subject of an event, such as `machine.created.p1.m1`; `all` stands where no machine is meant."""
    return f"{event_type}.{project}.{machine or 'all'}"


def event_filter(event_type: str) -> str:
    """What a subscriber of one event type listens to: `machine.created` → `machine.created.*.*`."""
    return f"{event_type}.*.*"


def monitor(project: ids.ProjectId) -> str:
    """Every stored event of one project."""
    return f"mon.{project}.>"


def dead_letter(consumer: str, subject: str) -> str:
    """Where what a consumer could not decode is kept."""
    return f"dlq.{consumer}.{subject}"


def sandbox_of(subject: str) -> ids.SandboxId:
    """The sandbox in `rpc.<S>.…`, `report.<S>.…`, `enrol.<S>.…` or `out.<S>.…`.

    Raises:
        errors.InvalidRequest: The subject is none of these.
    """
    tokens = subject.split(".")
    if len(tokens) < 3 or tokens[0] not in {"rpc", "report", "enrol", "out"}:  # noqa: PLR2004 - prefix, sandbox, kind
        raise errors.InvalidRequest(f"cannot read a sandbox from the subject {subject!r}")
    ids.split_sandbox(tokens[1])
    return ids.SandboxId(tokens[1])


def request_of(out_subject: str) -> str:
    """The request in `out.<S>.<caller>.<request>`."""
    return out_subject.rpartition(".")[2]
