"""What tests of files share: slices run to their end here and now, and a thread without root's rights over files."""

import contextlib
import ctypes
import os
import pathlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from paddock.contracts import errors
from paddock.daemon import file_slices

NOBODY = 65534

ResultT = TypeVar("ResultT")


def done(work: "file_slices.Slices[ResultT]") -> ResultT:
    """The outcome of slices, run at once."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: ResultT = end.value
            return result


def as_nobody(work: Callable[[], object]) -> object:
    """What came of it, a fault too, in a thread that has lost the rights of root over files, if we are root."""
    outcome: list[object] = []

    def run() -> None:
        ctypes.CDLL(None).setfsuid(NOBODY)
        try:
            outcome.append(work())
        except errors.Fault as fault:
            outcome.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome[0]


@contextlib.contextmanager
def seen_by_all() -> Iterator[pathlib.Path]:
    """A folder that everybody can reach and list; pytest's own are shut."""
    with tempfile.TemporaryDirectory(prefix="paddock-seen-") as name:
        path = pathlib.Path(name)
        path.chmod(0o755)
        yield path


def give_away(*paths: pathlib.Path) -> None:
    """Let nobody own them, if we are root; else they are already whose rights `as_nobody` has."""
    if os.geteuid() == 0:
        for path in paths:
            os.chown(path, NOBODY, -1)
