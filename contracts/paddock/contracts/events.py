"""Events: facts that happened, as CloudEvents 1.0 in structured JSON.

An event wakes the next stage and tells whoever watches. Nothing rests on its arrival: the work is a row. No event carries
a secret. `sequence` is the machine's own counter, so one machine's events have an order wherever they are read.
"""

import datetime
from typing import Annotated, Any

import msgspec

from paddock.contracts import errors, ids, subjects

SPEC_VERSION = "1.0"
SOURCE = "/paddock"

MACHINE_CREATED = "machine.created"
MACHINE_PROVISIONING = "machine.provisioning"
MACHINE_PROVISIONED = "machine.provisioned"
MACHINE_DAEMON_STATUS_REPORTED = "machine.daemon-status-reported"
MACHINE_SETUP_STEP_STARTED = "machine.setup-step-started"
MACHINE_SETUP_STEP_FINISHED = "machine.setup-step-finished"
MACHINE_SETUP_PUSHED = "machine.setup-pushed"
MACHINE_ENV_CHANGED = "machine.env-changed"
MACHINE_ENV_PUSHED = "machine.env-pushed"
MACHINE_PROBE_SUCCEEDED = "machine.probe-succeeded"
MACHINE_PROBE_FAILED = "machine.probe-failed"
MACHINE_ACTIVATED = "machine.activated"
MACHINE_FAILED = "machine.failed"
MACHINE_RETRY_REQUESTED = "machine.retry-requested"
MACHINE_DELETE_REQUESTED = "machine.delete-requested"
MACHINE_DELETED = "machine.deleted"
MACHINE_SANDBOX_VANISHED = "machine.sandbox-vanished"
MACHINE_CONNECTION_CHANGED = "machine.connection-changed"
MACHINE_HEALTH_CHANGED = "machine.health-changed"
PROJECT_CREATED = "project.created"
PROJECT_UPDATED = "project.updated"
PROJECT_DELETED = "project.deleted"
PROJECT_ENV_CHANGED = "project.env-changed"

ALL = (
    MACHINE_CREATED, MACHINE_PROVISIONING, MACHINE_PROVISIONED, MACHINE_DAEMON_STATUS_REPORTED,
    MACHINE_SETUP_STEP_STARTED, MACHINE_SETUP_STEP_FINISHED, MACHINE_SETUP_PUSHED, MACHINE_ENV_CHANGED,
    MACHINE_ENV_PUSHED, MACHINE_PROBE_SUCCEEDED, MACHINE_PROBE_FAILED, MACHINE_ACTIVATED, MACHINE_FAILED,
    MACHINE_RETRY_REQUESTED, MACHINE_DELETE_REQUESTED, MACHINE_DELETED, MACHINE_SANDBOX_VANISHED,
    MACHINE_CONNECTION_CHANGED, MACHINE_HEALTH_CHANGED, PROJECT_CREATED, PROJECT_UPDATED, PROJECT_DELETED,
    PROJECT_ENV_CHANGED,
)  # fmt: skip

WAKES_PROVISIONER = (
    MACHINE_CREATED,
    MACHINE_RETRY_REQUESTED,
    MACHINE_DELETE_REQUESTED,
    MACHINE_SANDBOX_VANISHED,
)
WAKES_SETUP_PUSHER = (MACHINE_DAEMON_STATUS_REPORTED, MACHINE_ENV_CHANGED, MACHINE_ACTIVATED)
WAKES_PROBER = (MACHINE_SETUP_PUSHED, MACHINE_ENV_PUSHED)


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One CloudEvent. `subject` is the machine's id, or the project's where no machine is meant."""

    specversion: Annotated[str, msgspec.Meta(description="Always 1.0.")]
    id: str
    source: str
    type: str
    subject: str
    time: str
    projectid: str
    machineid: str = ""
    actor: str = ""
    causationid: str = ""
    traceparent: str = ""
    sequence: int = 0
    data: dict[str, Any] = msgspec.field(default_factory=dict)

    def nats_subject(self) -> str:
        """Where this event is published."""
        machine = ids.MachineId(self.machineid) if self.machineid else None
        return subjects.event(self.type, ids.ProjectId(self.projectid), machine)


def new(
    event_type: str,
    *,
    event_id: str,
    at_ms: int,
    project: ids.ProjectId,
    machine: ids.MachineId | None = None,
    sequence: int = 0,
    actor: str = "",
    causation_id: str = "",
    traceparent: str = "",
    data: dict[str, Any] | None = None,
) -> Event:
    """One event as it leaves us. `at_ms` is unix time by the database's clock; empty members are left out on the wire."""
    return Event(
        specversion=SPEC_VERSION,
        id=event_id,
        source=SOURCE,
        type=event_type,
        subject=machine or project,
        time=time_text(at_ms),
        projectid=project,
        machineid=machine or "",
        actor=actor,
        causationid=causation_id,
        traceparent=traceparent,
        sequence=sequence,
        data=data or {},
    )


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """Structured-mode JSON."""
    return _encoder.encode(event)


def decode(body: bytes) -> Event:
    """An event from structured-mode JSON.

    Raises:
        errors.ParseError: It is not one; its bytes belong to the dead letters.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise errors.ParseError(f"cannot read an event: {error}") from error


def time_text(at_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds, as CloudEvents wants it."""
    moment = datetime.datetime.fromtimestamp(at_ms / 1000, tz=datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
