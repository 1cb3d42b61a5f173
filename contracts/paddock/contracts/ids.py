"""Identifiers: how they look, how they are made, and the types that keep them apart.

Ids of machines and projects become tokens of NATS subjects and names in credentials, so they are checked where they are
born: lowercase letters and digits, at most 40. Nothing else may make or split one.
"""

import re
import secrets
from typing import NewType

from paddock.contracts import errors

MachineId = NewType("MachineId", str)
ProjectId = NewType("ProjectId", str)
SandboxId = NewType("SandboxId", str)
"""`<machine>-<generation>`: one incarnation of a machine, and the name in its credential."""
CallId = NewType("CallId", str)
"""The caller's name for one side effect; the same id never acts twice. ULID, or derived from a stage run."""
BootId = NewType("BootId", str)
"""One life of one daemon process."""
EventId = NewType("EventId", str)

ID_PATTERN = r"^[a-z0-9]{1,40}$"
CALL_ID_PATTERN = r"^[A-Za-z0-9_-]{1,128}$"
_ID = re.compile(ID_PATTERN, re.ASCII)
_CALL_ID = re.compile(CALL_ID_PATTERN, re.ASCII)
_SANDBOX = re.compile(r"^([a-z0-9]{1,40})-([1-9][0-9]{0,8})$", re.ASCII)
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_SHORT_CHARS = 12
"""Sixty random bits: two in a fleet of a million collide once in 2 million fleets; the primary key refuses the second."""


def new_machine_id() -> MachineId:
    return MachineId("m" + _short())


def new_project_id() -> ProjectId:
    return ProjectId("p" + _short())


def new_boot_id() -> BootId:
    return BootId("b" + _short())


def new_ulid(now_ms: int) -> str:
    """A ULID: 48 bits of `now_ms`, 80 random bits, 26 Crockford characters; sorts by time to the millisecond."""
    number = (now_ms << 80) | secrets.randbits(80)
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -5, -5))


def machine_id(text: str) -> MachineId:
    """`text` as a machine id.

    Raises:
        errors.InvalidParams: It is none.
    """
    return MachineId(_checked(text, "machine id"))


def project_id(text: str) -> ProjectId:
    """`text` as a project id.

    Raises:
        errors.InvalidParams: It is none.
    """
    return ProjectId(_checked(text, "project id"))


def call_id(text: str) -> CallId:
    """`text` as a call id.

    Raises:
        errors.InvalidParams: It is none.
    """
    if not _CALL_ID.fullmatch(text):
        raise errors.InvalidParams("cannot use this call id: it must be 1-128 letters, digits, - or _")
    return CallId(text)


def sandbox_id(machine: MachineId, generation: int) -> SandboxId:
    """The id of one generation (from 1) of one machine."""
    return SandboxId(f"{machine}-{generation}")


def split_sandbox(sandbox: str) -> tuple[MachineId, int]:
    """The machine and generation of a sandbox id.

    Raises:
        errors.InvalidParams: It is none.
    """
    match = _SANDBOX.fullmatch(sandbox)
    if match is None:
        raise errors.InvalidParams("cannot use this sandbox id: it must be <machine>-<generation>")
    return MachineId(match[1]), int(match[2])


def _checked(text: str, what: str) -> str:
    if not _ID.fullmatch(text):
        raise errors.InvalidParams(f"cannot use this {what}: it must be 1-40 lowercase letters or digits")
    return text


def _short() -> str:
    return "".join(secrets.choice(_CROCKFORD) for _ in range(_SHORT_CHARS)).lower()
