"""The life of a machine: its phases, its work, and the one table of moves between them.

`phase` says how far the pipeline is, `connection` whether the daemon is on the bus, `health` whether an active machine is
well. They are three axes: a machine can be active, offline and degraded.
"""

import enum
from typing import Final

import msgspec


class Phase(enum.StrEnum):
    CREATED = "created"
    PROVISIONING = "provisioning"
    BOOTING = "booting"
    SETTING_UP = "setting_up"
    PROBING = "probing"
    ACTIVE = "active"
    DETACHED = "detached"
    STOPPING = "stopping"
    STOPPED = "stopped"
    STARTING = "starting"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


class Connection(enum.StrEnum):
    NEVER = "never"
    ONLINE = "online"
    OFFLINE = "offline"


class Health(enum.StrEnum):
    UNKNOWN = "unknown"
    WELL = "well"
    DEGRADED = "degraded"


class Lane(enum.StrEnum):
    """Work of one machine runs one at a time in each lane."""

    PROVIDER = "provider"
    GUEST = "guest"


class Stage(enum.StrEnum):
    PROVISION = "provision"
    DESTROY = "destroy"
    SETUP = "setup"
    ENV = "env"
    PROBE = "probe"


LANE_OF: Final = {
    Stage.PROVISION: Lane.PROVIDER,
    Stage.DESTROY: Lane.PROVIDER,
    Stage.SETUP: Lane.GUEST,
    Stage.ENV: Lane.GUEST,
    Stage.PROBE: Lane.GUEST,
}

UNFINISHED: Final = frozenset(
    {Phase.CREATED, Phase.PROVISIONING, Phase.BOOTING, Phase.SETTING_UP, Phase.PROBING, Phase.STARTING}
)
"""On the way to active; each has a limit, and passing it fails the machine with the reason."""
GUEST_REACHABLE: Final = frozenset({Phase.SETTING_UP, Phase.PROBING, Phase.ACTIVE, Phase.DETACHED})
"""A daemon of the current generation has said ready."""
CALLABLE: Final = frozenset({Phase.ACTIVE, Phase.DETACHED})
"""People may run commands."""
ENDED: Final = frozenset({Phase.DELETED})


class Move(msgspec.Struct, frozen=True):
    """One way from some phases to another.

    `limit_s` is how long the machine may stay in `target`; None means for ever.
    """

    name: str
    sources: frozenset[Phase]
    target: Phase
    event: str
    limit_s: float | None = None


def _move(name: str, sources: set[Phase], target: Phase, event: str, limit_s: float | None = None) -> Move:
    return Move(name, frozenset(sources), target, event, limit_s)


CLAIM = _move("claim", {Phase.CREATED}, Phase.PROVISIONING, "machine.provisioning", 3 * 300.0 + 60)
BOOT = _move("boot", {Phase.PROVISIONING, Phase.STARTING}, Phase.BOOTING, "machine.provisioned", 120.0)
SET_UP = _move(
    "set_up",
    {Phase.PROVISIONING, Phase.STARTING, Phase.BOOTING},
    Phase.SETTING_UP,
    "machine.daemon-status-reported",
    900.0,
)
SET_UP_AGAIN = _move(
    "set_up_again",
    {Phase.SETTING_UP, Phase.PROBING},
    Phase.SETTING_UP,
    "machine.daemon-status-reported",
    900.0,
)
PROBE = _move("probe", {Phase.SETTING_UP}, Phase.PROBING, "machine.setup-pushed", 120.0)
ACTIVATE = _move("activate", {Phase.PROBING}, Phase.ACTIVE, "machine.activated")
RECREATE = _move(
    "recreate",
    {Phase.PROVISIONING, Phase.BOOTING, Phase.SETTING_UP, Phase.PROBING, Phase.ACTIVE},
    Phase.CREATED,
    "machine.sandbox-vanished",
    3600.0,
)
"""The sandbox is positively gone: the next generation starts in the same HOME."""
RETRY = _move("retry", {Phase.FAILED}, Phase.CREATED, "machine.retry-requested", 3600.0)
FAIL = _move(
    "fail",
    {
        Phase.CREATED, Phase.PROVISIONING, Phase.BOOTING, Phase.SETTING_UP, Phase.PROBING, Phase.STARTING,
        Phase.ACTIVE, Phase.STOPPING,
    },
    Phase.FAILED,
    "machine.failed",
)  # fmt: skip
DELETE = _move(
    "delete", set(Phase) - {Phase.DELETING, Phase.DELETED}, Phase.DELETING, "machine.delete-requested"
)
DELETED = _move("deleted", {Phase.DELETING}, Phase.DELETED, "machine.deleted")

CREATED_LIMIT_S = 3600.0
"""In the queue; queueing is not failing, but an hour without anybody claiming it is."""
ATTEMPT_LIMIT_S: Final = {
    Stage.PROVISION: 300.0,
    Stage.DESTROY: 120.0,
    Stage.SETUP: 300.0,
    Stage.ENV: 60.0,
    Stage.PROBE: 30.0,
}
"""One attempt of one stage; longer is a known failure of that attempt."""
MAX_ATTEMPTS: Final = {Stage.PROVISION: 3, Stage.SETUP: 3}
"""Then the machine fails. Stages not named are tried until the phase's limit, or for ever."""
FAILED_KEPT_S = 3600.0
"""How long the sandbox of a failed machine is kept for a look before it is destroyed."""
MAX_RECREATIONS = 3
RECREATIONS_WITHIN_S = 600.0

MOVES: Final = (CLAIM, BOOT, SET_UP, SET_UP_AGAIN, PROBE, ACTIVATE, RECREATE, RETRY, FAIL, DELETE, DELETED)
