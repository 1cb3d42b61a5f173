"""Why a sandbox ended, in a sentence people read: what was seen from outside, and what its supervisor said last."""

import contextlib
import signal

import msgspec

from paddock.provisioner.providers import records

LOG_TAIL_BYTES = 4096
_SIGNAL_BASE = 128
_WORD_CHARS_MAX = 500


class _Line(msgspec.Struct, frozen=True):
    """A line of the boot log, as far as it matters here."""

    service: str
    detail: str


def why(folder: records.Folder) -> str:
    """Why it ended: how whoever waited for it saw it end, and what the supervisor said last."""
    code = folder.status().exit_code
    ending = "it ended, nobody saw how" if code is None else _ending(code)
    said = _last_word(log_tail(folder))
    return f"{ending}; its supervisor said last: {said}" if said else ending


def log_tail(folder: records.Folder) -> str:
    """The last lines of the boot log."""
    return folder.log_end(LOG_TAIL_BYTES)[0].decode(errors="replace")


def _last_word(log: str) -> str:
    """What the supervisor said last; others write into the log too."""
    for line in reversed(log.splitlines()):
        with contextlib.suppress(msgspec.MsgspecError):
            said = msgspec.json.decode(line, type=_Line)
            if said.service == "supervise":
                return said.detail[:_WORD_CHARS_MAX]
    return ""


def _ending(code: int) -> str:
    """A signal is a negative code from waitpid, and 128 more than its number from bwrap."""
    number = -code if code < 0 else code - _SIGNAL_BASE
    if number in {member.value for member in signal.Signals}:
        return f"it was ended by {signal.Signals(number).name}"
    return f"it ended with exit code {code}"
