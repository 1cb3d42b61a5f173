"""What every provider of sandboxes offers.

Nothing here knows about machines' phases, rows or events. Each call may be repeated and may have been cut short by a
kill -9 at any line: asking again finds what the first call left, it never makes a second sandbox.
"""

import dataclasses
from typing import Literal, Protocol

import msgspec

from paddock.contracts import ids


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """What one sandbox is started with. `credentials` is the text of a NATS creds file, a secret."""

    machine_id: ids.MachineId
    generation: int
    bus_url: str
    node: str
    credentials: str = dataclasses.field(repr=False)

    @property
    def sandbox_id(self) -> ids.SandboxId:
        return ids.sandbox_id(self.machine_id, self.generation)


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """`external_id` is the provider's own name for the sandbox. `is_new` is False when it was there already."""

    external_id: str
    is_new: bool


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """How a sandbox is.

    `vanished` is a positive not-found where it would have to be, never an error or a time-out; `exited` has left its
    log behind. `reason` is a sentence, `log_tail` the last lines of the boot log.
    """

    state: Literal["running", "exited", "vanished"]
    reason: str = ""
    log_tail: str = ""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox on the provider's list. `external_id` is empty when its start was cut short."""

    sandbox_id: ids.SandboxId
    external_id: str
    created_at_ms: int


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a boot log; `size_bytes` is of the whole."""

    text: str
    size_bytes: int


class Provider(Protocol):
    """One source of sandboxes."""

    @property
    def name(self) -> str:
        """As projects name it: `bubblewrap`, `process`."""

    async def available(self) -> str | None:
        """None when sandboxes can be made here, else why not. Found out by making one, and remembered."""

    async def create(self, spec: SandboxSpec) -> Created:
        """Have the sandbox of this machine and generation running.

        Raises:
            errors.ProviderFailed: It could not be started; nothing of it runs.
            errors.Conflict: Another generation of the machine still runs.

        Cancellation: safe; what was begun goes on and is found by the next call, or by `sandboxes`.
        """

    async def inspect(self, sandbox: ids.SandboxId) -> Inspection:
        """How the sandbox is, by looking at it.

        Raises:
            errors.ProviderFailed: It could not be found out.
        """

    async def ended(self, sandbox: ids.SandboxId) -> None:
        """Return once the sandbox does not run (any more)."""

    async def delete(self, sandbox: ids.SandboxId) -> None:
        """Remove the sandbox; everything in it is gone on return. Not there is success.

        Raises:
            errors.ProviderFailed: Something in it is still alive at the deadline; ask again.
        """

    async def delete_home(self, machine: ids.MachineId) -> None:
        """Remove what the generations of a machine share. Not there is success.

        Raises:
            errors.Conflict: A sandbox of the machine is still there.
            errors.ProviderFailed: Not all of it could be removed; ask again.
        """

    async def sandboxes(self) -> list[Found]:
        """Every sandbox there is a trace of, running or not."""

    async def has(self, sandbox: ids.SandboxId) -> bool:
        """Whether there is a trace of this sandbox."""
        ...

    async def tidy(self) -> None:
        """Housekeeping, now and then: what sandboxes leave behind while they live stays within bounds."""
        ...

    async def log(self, sandbox: ids.SandboxId, *, tail_bytes: int) -> Log:
        """The end of the sandbox's boot log.

        Raises:
            errors.NotFound: There is no such sandbox here.
        """
