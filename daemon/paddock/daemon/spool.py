"""Reports that wait on disk until the control plane has taken them.

One small file a kind; a newer report of a kind takes the place of the one that waits. Today there is one kind, `ready`:
what must not be lost of it is why daemons ended while nobody could be told.
"""

import pathlib

import msgspec

from paddock.bus import logs
from paddock.contracts import daemon
from paddock.daemon import write_file

_REASON_CHARS = 500

log = logs.get(__name__)


class Spool:
    """The folder of waiting reports."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._ready = folder / "ready.json"

    def joined(self, report: daemon.ReadyParams) -> daemon.ReadyParams:
        """This report, with the reason that an earlier one could not deliver."""
        waiting = self._waiting()
        if waiting is None or not waiting.last_exit or waiting.boot_id == report.boot_id:
            return report
        reason = f"{report.last_exit or 'unknown'}; before that: {waiting.last_exit}"
        return msgspec.structs.replace(report, last_exit=reason[:_REASON_CHARS])

    def keep(self, report: daemon.ReadyParams) -> None:
        """Put it on disk. A disk that refuses does not keep the machine from reporting: that is logged."""
        try:
            self._ready.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file.replace(self._ready, msgspec.json.encode(report), 0o600)
        except OSError as error:
            log.warning("report_not_spooled", error=str(error))

    def drop(self) -> None:
        """It was taken."""
        try:
            self._ready.unlink(missing_ok=True)
        except OSError as error:
            log.warning("report_not_dropped", error=str(error))

    def _waiting(self) -> daemon.ReadyParams | None:
        try:
            return msgspec.json.decode(self._ready.read_bytes(), type=daemon.ReadyParams)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
