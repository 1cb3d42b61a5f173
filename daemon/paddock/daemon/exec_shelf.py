"""The folders of all commands that are known, below `$PADDOCK_HOME/exec`: read at the start, removed when they are old.

A folder that is being removed is renamed first: half of a record must never be taken for a whole one.
"""

import contextlib
import os
import pathlib
import shutil

from paddock.bus import logs
from paddock.daemon import exec_record, paths

_GONE = ".gone-"
"""How the name of a folder begins that is being removed; no id holds a dot."""

log = logs.get(__name__)


def read(shelf: pathlib.Path, exec_id: str) -> exec_record.Record | None:
    """What is known of one command; None when there is no such.

    Raises:
        errors.Fault: Its record cannot be read.
    """
    try:
        return exec_record.read(shelf / exec_id)
    except OSError as error:
        raise paths.fault(error, f"read what is known of the command {exec_id[:128]!r}") from error


def read_all(shelf: pathlib.Path) -> list[exec_record.Record]:
    """Every record that can be read, the oldest first; what a removal cut short has left is removed.

    Raises:
        OSError: The folder cannot be read.
    """
    found = []
    for path in shelf.iterdir() if shelf.is_dir() else ():
        if path.name.startswith(_GONE):
            shutil.rmtree(path, ignore_errors=True)
            continue
        try:
            record = exec_record.read(path)
        except OSError as error:
            log.warning("record_not_read", exec_id=path.name, error=os.strerror(error.errno or 0))
            continue
        if record is not None and record.id == path.name:
            found.append(record)
    return sorted(found, key=lambda record: record.began_at_ms)


def remove(shelf: pathlib.Path, exec_id: str) -> None:
    """Remove a command with all that it wrote."""
    gone = shelf / f"{_GONE}{exec_id}"
    with contextlib.suppress(FileNotFoundError):
        (shelf / exec_id).rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
