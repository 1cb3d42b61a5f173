"""What a person reads when something could not be done: one sentence, and what to do about it."""

import json
import sys
from typing import Final

from paddock.contracts import errors

MACHINE_FAILED = 1
"""What was waited for did not come about."""
OTHER, UNREACHABLE, MISSING, REFUSED, MACHINE_FILES, AGAIN, UNREADABLE, NOT_ALLOWED, NOT_LIKE_THIS = range(
    70, 79
)
"""Exit codes of faults: beside 0 to 69, which are a command's own in `paddock exec`."""
_CODES: Final[dict[type[errors.Fault], int]] = {
    errors.GatewayUnreachable: UNREACHABLE,
    errors.NotFound: MISSING,
    errors.CommandNotFound: MISSING,
    errors.NoSuchPath: MISSING,
    errors.UnknownProvider: MISSING,
    errors.MethodNotFound: UNREADABLE,
    errors.MachineGone: MISSING,
    errors.Conflict: REFUSED,
    errors.CallConflict: REFUSED,
    errors.InUse: REFUSED,
    errors.WrongPhase: REFUSED,
    errors.CursorExpired: REFUSED,
    errors.NotRunning: REFUSED,
    errors.StdinClosed: REFUSED,
    errors.NotATerminal: REFUSED,
    errors.PathExists: REFUSED,
    errors.NotEmpty: REFUSED,
    errors.OutputLimit: REFUSED,
    errors.IsADirectory: MACHINE_FILES,
    errors.NotADirectory: MACHINE_FILES,
    errors.DiskFull: MACHINE_FILES,
    errors.ReadOnly: MACHINE_FILES,
    errors.InputOutput: MACHINE_FILES,
    errors.BadPath: MACHINE_FILES,
    errors.BadAnswer: UNREADABLE,
    errors.RemoteFault: UNREADABLE,
    errors.Internal: OTHER,
    errors.Unauthenticated: NOT_ALLOWED,
    errors.PermissionDenied: NOT_ALLOWED,
    errors.InvalidParams: NOT_LIKE_THIS,
    errors.InvalidRequest: NOT_LIKE_THIS,
    errors.PayloadTooLarge: NOT_LIKE_THIS,
    errors.BadOffset: NOT_LIKE_THIS,
}
_HINTS: Final[dict[type[errors.Fault], str]] = {
    errors.GatewayUnreachable: "start one here with `paddock up`, or name another with --url or PADDOCK_URL",
    errors.Unauthenticated: "give a valid token with --token-file, PADDOCK_TOKEN_FILE or PADDOCK_TOKEN",
    errors.MachineOffline: "`paddock machine get` shows when it was last seen; it comes back on its own or fails",
    errors.MachineNotReady: "`paddock machine history` shows how far it is",
    errors.MachineGone: "create another with `paddock machine create`",
    errors.WrongPhase: "`paddock machine get` shows its phase",
    errors.CommandNotFound: "look at its spelling and at the PATH in the machine",
    errors.NoAnswer: "it may have been done all the same, so look before you ask again",
    errors.DeadlineExceeded: "it may have been done all the same, so look before you ask again",
    errors.KeeperLost: "`paddock ps` shows what still runs",
    errors.OutcomeUnknown: "look in the machine what it did before you run it again",
    errors.CursorExpired: "follow without --since",
    errors.BadAnswer: "compare the versions of this command and of the gateway",
    errors.RemoteFault: "this command is older than the gateway: upgrade it",
    errors.MethodNotFound: "this command is newer than the gateway: upgrade the gateway",
    errors.UnknownProvider: "the gateway's operator can say which providers there are",
}


def exit_code(fault: errors.Fault) -> int:
    """70 to 78, by what can be done about it."""
    return _CODES.get(type(fault), AGAIN if fault.retryable else OTHER)


def sentence(fault: errors.Fault) -> str:
    """What could not be done and what to do, on one line."""
    hint = _HINTS.get(type(fault), "try again" if fault.retryable else "")
    if isinstance(fault, errors.Internal) and (request_id := fault.data.get("requestId")):
        hint = f"the gateway's log says why under request {request_id}"
    text = fault.message.strip().rstrip(".")
    return printable(f"{text}; {hint}" if hint else text)


def tell(fault: errors.Fault, *, is_json: bool) -> None:
    """Write a fault to stderr, for people or for programs."""
    if is_json:
        body = {"code": fault.code, "kind": fault.kind, "message": fault.message, "data": fault.data}
        remark(json.dumps({"error": body}))
    else:
        say(sentence(fault))


def say(text: str) -> None:
    """A remark beside the result: on stderr, so that pipes get results only."""
    remark(f"paddock: {text}")


def remark(line: str) -> None:
    """A line on stderr; nowhere when that is closed, where `print` would take stdout instead."""
    if sys.stderr is not None:
        print(line, file=sys.stderr)


def printable(text: str) -> str:
    """`text` on one line; what would steer a terminal is shown as its escape."""
    return "".join(one if one.isprintable() else _escaped(one) for one in " ".join(text.splitlines()))


def _escaped(character: str) -> str:
    return " " if character == "\t" else character.encode("unicode_escape").decode("ascii")
