"""Which port of which machine a request is for: by its host, `<port>--<machine>.<domain>`, or its path.

Raw text in and raw text out: whatever a client wrote after the address reaches the application byte for byte. Knows the
form only, not whether there is such a machine.
"""

import dataclasses
import re
from typing import Final

from paddock.contracts import errors, ids

PATH_START: Final = "/machines/"
MARK: Final = "--"
"""Between port and machine. No host without it is looked at twice."""
_PATH: Final = re.compile(r"/machines/([^/?]*)/ports/([^/?]*)(/.*|\?.*)?", re.DOTALL)
_HOST: Final = re.compile(r"([^:]*):?[0-9]*")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_MACHINE: Final = re.compile(ids.ID_PATTERN, re.ASCII)
_PORT_MAX: Final = 65_535
_SHOWN_CHARS_MAX: Final = 20


@dataclasses.dataclass(frozen=True, slots=True)
class PortAddress:
    """One port, and what is asked of the application there.

    `target` is the raw path with its query; `prefix` what stood before it, empty when the host named the port.
    `lacks_slash` is a path that ends with the port: relative links would go wrong from there.
    """

    machine_id: ids.MachineId
    port: int
    target: str
    prefix: str = ""
    lacks_slash: bool = False


class Addresses:
    """Reads addresses under one domain; an empty domain leaves the path form."""

    def __init__(self, domain: str) -> None:
        self._suffix = f".{domain.lower()}" if domain else ""

    def of(self, host: str, raw_path: str) -> PortAddress | None:
        """The port this request is for; None when it is for the gateway itself.

        Raises:
            errors.InvalidRequest: It is for a port, and no port has such a number, or the target is no path.
            errors.NotFound: No machine has such an id.
        """
        named = self.named(host)
        if named is not None:
            if not raw_path.startswith("/"):
                raise errors.InvalidRequest("cannot pass on a request whose target is not a path")
            return PortAddress(*_checked(*named), raw_path)
        match = _PATH.fullmatch(raw_path)
        if match is None:
            return None
        machine_id, port = _checked(match[2], match[1])
        rest = match[3] or ""
        lacks_slash = not rest.startswith("/")
        return PortAddress(
            machine_id,
            port,
            f"/{rest}" if lacks_slash else rest,
            prefix(machine_id, port),
            lacks_slash,
        )

    def named(self, host: str) -> tuple[str, str] | None:
        """Port and machine as a host names them, in any spelling of it; None when it names none."""
        if MARK not in host or not self._suffix:
            return None
        match = _HOST.fullmatch(host)
        name = (match[1] if match else host).lower().removesuffix(".")
        label = name.removesuffix(self._suffix)
        if label == name or "." in label or MARK not in label:
            return None
        port, _, machine = label.partition(MARK)
        return port, machine

    def host(self, machine_id: str, port: int) -> str:
        """The host that names this port; empty when there is no domain."""
        return f"{port}{MARK}{machine_id}{self._suffix}" if self._suffix else ""


def prefix(machine_id: str, port: int) -> str:
    """What stands before the application's own path in the path form."""
    return f"{PATH_START}{machine_id}/ports/{port}"


def _checked(port: str, machine: str) -> tuple[ids.MachineId, int]:
    if not _PORT.fullmatch(port) or int(port) > _PORT_MAX:
        raise errors.InvalidRequest(
            f"cannot reach port {port[:_SHOWN_CHARS_MAX]!r}: a port is a number from 1 to {_PORT_MAX}"
        )
    if not _MACHINE.fullmatch(machine):
        raise errors.NotFound("cannot find this machine")
    return ids.MachineId(machine), int(port)
