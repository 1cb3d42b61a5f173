"""`state.json`: what the daemon was doing last, for people and for the daemon after it.

Never deleted: absent means never started. What cannot be read is set aside, not thrown away. A state of `running` found
at start means that the daemon before this one ended without a word.
"""

import pathlib
from typing import Annotated, Literal

import msgspec

from paddock.bus import logs
from paddock.daemon import write_file

log = logs.get(__name__)

Name = Literal["running", "stopped"]


class State(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The file. Members of a newer daemon are passed over."""

    state: Name
    state_reason: str
    boot_id: str
    pid: Annotated[int, msgspec.Meta(gt=0)]
    version: str
    since_ms: int


class StateFile:
    """The state in one file."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path

    def read(self, *, now_ms: int) -> State | None:
        """The last state; None when there is none. An unreadable file is renamed to `<name>.corrupt-<now_ms>`.

        Raises:
            OSError: The file system refused.
        """
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=State)
        except FileNotFoundError:
            return None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            aside = self._path.with_name(f"{self._path.name}.corrupt-{now_ms}")
            self._path.rename(aside)
            log.warning("state_set_aside", path=str(aside), error=str(error))
            return None

    def write(self, state: State) -> None:
        """Replace the state. A disk that is full must not keep the daemon from working: it is logged."""
        try:
            text = msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n"
            write_file.replace(self._path, text, 0o600)
        except OSError as error:
            log.warning("state_not_written", error=str(error))


def last_exit(last: State | None, told: str) -> str:
    """Why the daemon before this one ended, as far as anybody knows.

    Args:
        last: Its last state.
        told: What the supervisor saw; empty when it started afresh.
    """
    if last is None:
        return told
    if last.state == "stopped":
        return last.state_reason or told
    return told or "ended without a word"
