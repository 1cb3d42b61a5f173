"""The environment of commands: the daemon's own, then `~/.paddock/.env` as it is now, then the call's.

The file is read again only when it changed, which one `stat` a command tells.
"""

import pathlib
from collections.abc import Mapping

from paddock.bus import logs
from paddock.daemon import env_file, paths

INTERNAL_NAMES = frozenset({"PADDOCK_SUPERVISOR", "PADDOCK_LAST_EXIT", "PADDOCK_BOOTED_FD"})
"""What the supervisor tells the daemon; no command's business."""

log = logs.get(__name__)


class Environment:
    """Answers what the environment of a command is."""

    def __init__(self, base: Mapping[str, str], file: pathlib.Path) -> None:
        self._base = {name: value for name, value in base.items() if name not in INTERNAL_NAMES}
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._from_file: dict[str, str] = {}

    def now(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """A new environment with `extra` on top.

        Raises:
            errors.Fault: The file is there and cannot be read: a command without it would do the wrong thing.
        """
        try:
            self._refresh()
        except OSError as error:
            raise paths.fault(error, f"read {self._file}") from error
        return {**self._base, **self._from_file, **(extra or {})}

    def _refresh(self) -> None:
        try:
            status = self._file.stat()
        except FileNotFoundError:
            self._seen, self._from_file = None, {}
            return
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen == self._seen:
            return
        parsed = env_file.read(self._file)
        if parsed.bad_lines:
            log.warning("env_file_lines_passed_over", lines=parsed.bad_lines, path=str(self._file))
        self._seen, self._from_file = seen, parsed.variables
