"""The catalogue of expected failures.

Each fault has a code (never reused), a stable snake_case kind, a sentence for the user and whether trying again can help.
`detail` is for our own log and never crosses a wire; `data` does. What is not here is a bug and leaves as `Internal`.

Bands: negative as in JSON-RPC 2.0 · 1000 the request · 2000 who asks · 3000 things that are kept · 4000 machines ·
5000 tools inside a machine · 6000 providers and the bus.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class Fault(Exception):
    """Something expected went wrong."""

    code: ClassVar[int]
    kind: ClassVar[str]
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", *, data: Mapping[str, Any] | None = None, detail: str = "") -> None:
        """Make one.

        Args:
            message: A sentence for the user that starts with what could not be done; the class docstring when empty.
            data: JSON members for the caller's program, such as `{"lastSeenAt": …}`; never a secret.
            detail: For our log only.
        """
        super().__init__(message or (type(self).__doc__ or "").strip())
        self.message = str(self.args[0])
        self.data: dict[str, Any] = dict(data or {})
        self.detail = detail


class ParseError(Fault):
    """The request is not JSON."""

    code, kind = -32700, "parse_error"


class InvalidRequest(Fault):
    """The request is not a JSON-RPC 2.0 request."""

    code, kind = -32600, "invalid_request"


class MethodNotFound(Fault):
    """There is no such method."""

    code, kind = -32601, "method_not_found"


class InvalidParams(Fault):
    """The parameters do not fit the method."""

    code, kind = -32602, "invalid_params"


class Internal(Fault):
    """Something broke on our side; the request id finds it in our log."""

    code, kind, retryable = -32603, "internal", True


class PayloadTooLarge(Fault):
    """The message is larger than the limit."""

    code, kind = 1001, "payload_too_large"


class DeadlineExceeded(Fault):
    """The deadline passed before the answer; the work may still have been done."""

    code, kind, retryable = 1002, "deadline_exceeded", True


class ShuttingDown(Fault):
    """The process is stopping; ask another or again."""

    code, kind, retryable = 1003, "shutting_down", True


class LateCall(Fault):
    """The call arrived after its deadline and was not carried out."""

    code, kind, retryable = 1004, "late_call", True


class TooManyInFlight(Fault):
    """Too many calls are in flight here."""

    code, kind, retryable = 1005, "too_many_in_flight", True


class ChannelBroken(Fault):
    """The channel broke off before its end; open it again where it stopped."""

    code, kind, retryable = 1006, "channel_broken", True


class Unauthenticated(Fault):
    """The access token is missing or not valid."""

    code, kind = 2001, "unauthenticated"


class NotFound(Fault):
    """There is no such thing, or it is not yours."""

    code, kind = 3001, "not_found"


class Conflict(Fault):
    """It exists already, or was asked for with other parameters."""

    code, kind = 3002, "conflict"


class CursorExpired(Fault):
    """The event cursor is older than what is kept."""

    code, kind = 3003, "cursor_expired"


class InUse(Fault):
    """Something still depends on it."""

    code, kind = 3004, "in_use"


class UnknownProvider(Fault):
    """There is no such provider here."""

    code, kind = 3005, "unknown_provider"


class MachineGone(Fault):
    """The machine was deleted; nothing can be asked of it."""

    code, kind = 4001, "machine_gone"


class MachineOffline(Fault):
    """The machine's daemon is not connected."""

    code, kind, retryable = 4002, "machine_offline", True


class MachineNotReady(Fault):
    """The machine is not active yet."""

    code, kind, retryable = 4003, "machine_not_ready", True


class WrongPhase(Fault):
    """The machine's phase does not allow this."""

    code, kind = 4004, "wrong_phase"


class SetupFailed(Fault):
    """The setup of the machine failed."""

    code, kind = 4005, "setup_failed"


class RepositoryFailed(Fault):
    """A repository could not be cloned."""

    code, kind = 4006, "repository_failed"


class PathInUse(Fault):
    """The path is taken by something else, and nothing of the user's is ever removed."""

    code, kind = 4007, "path_in_use"


class ProbeFailed(Fault):
    """The machine does not answer well."""

    code, kind, retryable = 4008, "probe_failed", True


class LimitExceeded(Fault):
    """A phase of the machine took longer than its limit."""

    code, kind = 4009, "limit_exceeded"


class CommandNotFound(Fault):
    """There is no such command in the machine."""

    code, kind = 5001, "command_not_found"


class PermissionDenied(Fault):
    """The machine's user may not do this."""

    code, kind = 5002, "permission_denied"


class NoSuchPath(Fault):
    """The path does not exist in the machine."""

    code, kind = 5003, "no_such_path"


class IsADirectory(Fault):
    """The path is a directory."""

    code, kind = 5004, "is_a_directory"


class NotADirectory(Fault):
    """A part of the path is not a directory."""

    code, kind = 5005, "not_a_directory"


class DiskFull(Fault):
    """The machine's disk, or its quota, is full."""

    code, kind = 5006, "disk_full"


class ReadOnly(Fault):
    """The file system is read-only."""

    code, kind = 5007, "read_only"


class CallConflict(Fault):
    """This call id was used for another request."""

    code, kind = 5008, "call_conflict"


class OutcomeUnknown(Fault):
    """The call began and its end was lost; it is not run again."""

    code, kind = 5009, "unknown"


class BadPath(Fault):
    """The path cannot be used."""

    code, kind = 5010, "bad_path"


class CannotSpawn(Fault):
    """The machine could not start the process."""

    code, kind, retryable = 5011, "cannot_spawn", True


class InputOutput(Fault):
    """The machine's file system refused for a reason of its own."""

    code, kind = 5012, "input_output"


class OutputLimit(Fault):
    """This part of the output is no longer kept: the command wrote more than its limit."""

    code, kind = 5013, "output_limit"


class BadOffset(Fault):
    """The offset lies beyond the end."""

    code, kind = 5014, "bad_offset"


class NotRunning(Fault):
    """The command has ended."""

    code, kind = 5015, "not_running"


class StdinClosed(Fault):
    """The command's standard input takes nothing more."""

    code, kind = 5016, "stdin_closed"


class NotATerminal(Fault):
    """The command has no terminal."""

    code, kind = 5017, "not_a_terminal"


class PathExists(Fault):
    """Something is there already."""

    code, kind = 5018, "path_exists"


class NotEmpty(Fault):
    """The directory is not empty."""

    code, kind = 5019, "not_empty"


class PortRefused(Fault):
    """Nothing in the machine listens on this port."""

    code, kind, retryable = 5020, "port_refused", True


class KeeperLost(Fault):
    """What keeps commands in the machine cannot be reached; what runs may still run."""

    code, kind, retryable = 5021, "keeper_lost", True


class ProviderFailed(Fault):
    """The provider could not do it."""

    code, kind, retryable = 6001, "provider_failed", True


class BusDown(Fault):
    """The bus is not connected."""

    code, kind, retryable = 6002, "bus_down", True


class NoAnswer(Fault):
    """Nobody answered in time; the peer may still have done the work."""

    code, kind, retryable = 6003, "no_answer", True


class BadAnswer(Fault):
    """The peer's answer could not be read."""

    code, kind = 6004, "bad_answer"


class SandboxVanished(Fault):
    """The sandbox is no longer there."""

    code, kind, retryable = 6005, "sandbox_vanished", True


class SandboxExited(Fault):
    """The sandbox ended on its own."""

    code, kind, retryable = 6006, "sandbox_exited", True


class StoreDown(Fault):
    """The database does not answer."""

    code, kind, retryable = 6007, "store_down", True


class GatewayUnreachable(Fault):
    """Nothing answers at the gateway's address; nothing was asked."""

    code, kind, retryable = 6008, "gateway_unreachable", True


class RemoteFault(Fault):
    """A fault of a newer peer, which this catalogue does not know."""

    code, kind = 6999, "remote_fault"


def catalogue() -> dict[int, type[Fault]]:
    """Every fault by its code."""
    return {fault.code: fault for fault in Fault.__subclasses__()}


_BY_CODE = catalogue()


def from_wire(code: int, message: str, data: Mapping[str, Any] | None = None) -> Fault:
    """The fault a peer sent; a code from a newer catalogue becomes `RemoteFault` with the code kept in `data`."""
    known = _BY_CODE.get(code)
    if known is None:
        return RemoteFault(message, data={**(data or {}), "code": code})
    return known(message, data=data)
