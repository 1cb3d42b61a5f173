"""Our standard input as it comes, a piece at a time.

Nothing is read ahead of who asks for it, and a terminal or pipe that stays open and silent holds nobody up.
"""

import contextlib
import os
import select
import sys
from typing import Final, Self

from paddock.client.commands import aside

STDIN: Final = 0
PIECE_BYTES: Final = 256 * 1024


def is_open() -> bool:
    """Whether we were given a standard input; else its number is by now something of our own."""
    return sys.__stdin__ is not None


class Inlet:
    """Used inside `async with`; `async for piece in inlet` ends at its end, or where a terminal hangs up."""

    def __init__(self, fd: int = STDIN) -> None:
        self._fd = fd
        self._thread = aside.Aside("stdin")
        self._woken, self._wake = os.pipe()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        os.close(self._wake)  # who polls the other end, stops
        self._thread.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._thread.do(self._read)
        if not piece:
            raise StopAsyncIteration
        return piece

    def _read(self) -> bytes:
        if self._fd == STDIN and not is_open():
            return b""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        if any(fd == self._woken for fd, _ in poll.poll()):
            os.close(self._woken)
            return b""
        with contextlib.suppress(OSError):  # closed, or its terminal is gone: that is its end
            return os.read(self._fd, PIECE_BYTES)
        return b""
