"""Our own terminal: its size, and its keys as they are pressed.

`raw` gives it back as it was however the block ends.
"""

import contextlib
import dataclasses
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Final

from paddock.client.commands import inlet
from paddock.contracts import errors, executions

UNKNOWN: Final = (80, 24)
KIND: Final = "xterm-256color"
"""What a command is told about a terminal that does not say what it is."""


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    columns: int
    rows: int


def is_here(fd: int = inlet.STDIN) -> bool:
    return inlet.is_open() and os.isatty(fd)


def is_shown() -> bool:
    """Whether somebody reads our remarks as they come."""
    return sys.stderr is not None and sys.stderr.isatty()


def demanded(what: str) -> None:
    """Refuse what needs a terminal where there is none.

    Raises:
        errors.InvalidParams: Our standard input is no terminal.
    """
    if not is_here():
        raise errors.InvalidParams(f"cannot {what}: our standard input is no terminal")


def size(fd: int = inlet.STDIN) -> Size:
    """As it is now; 80 by 24 where nobody knows."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        columns, rows = UNKNOWN
    return Size(_fitting(columns or UNKNOWN[0]), _fitting(rows or UNKNOWN[1]))


def environment() -> dict[str, str]:
    """What a command in another machine is told about this terminal."""
    known = {name: os.environ[name] for name in ("TERM", "COLORTERM") if os.environ.get(name)}
    return {"TERM": KIND} | known


@contextlib.contextmanager
def raw(fd: int = inlet.STDIN) -> Iterator[Callable[[], None]]:
    """Inside the block keys come as bytes, Ctrl-C too, and bytes go out as they are.

    Gives a function that makes it so again, for when we were stopped and somebody else had the terminal meanwhile.
    """
    before = termios.tcgetattr(fd)
    # Not cfmakeraw of what is there then: a second time must lead to the same.
    try:
        tty.setraw(fd, termios.TCSANOW)
        inside = termios.tcgetattr(fd)

        def again() -> None:
            _set(fd, inside)

        yield again
    finally:
        _set(fd, before)


def _set(fd: int, attributes: list[int | list[bytes | int]]) -> None:
    # At once, without waiting for output to drain: on a stopped terminal that is for ever. One that hung up is gone.
    with contextlib.suppress(termios.error):
        termios.tcsetattr(fd, termios.TCSANOW, attributes)


def _fitting(number: int) -> int:
    return max(1, min(number, executions.TERMINAL_MAX))
