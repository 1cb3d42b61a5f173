"""Turns at booting: a host starts only so many sandboxes at once, and the others wait theirs.

A boot is a Python's start, all processor. Fifty at once are no sooner ready than two at a time, one after the other; but
they take the processor from everything else for seconds, the control plane included. A turn ends when the daemon is ready.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

BOOTED_FD = 5
"""In the sandbox: the supervisor and its first daemon hold it open, the daemon closes it when it is ready."""
BOOTED_VARIABLE = "PADDOCK_BOOTED_FD"
BOOT_MAX_S = 5.0
"""A sandbox that is not ready by then hinders nobody any longer; the limit of `booting` judges it."""


class Boots:
    """The turns of one provider; `at_once` of them."""

    def __init__(self, at_once: int) -> None:
        self._free = asyncio.Semaphore(at_once)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[int]:
        """Wait for a turn; inside, start one sandbox that holds the descriptor given.

        The turn ends when nobody holds that descriptor any more: the daemon is ready, the sandbox ended, or none was
        started. Whoever takes the descriptor into a thread closes it there.

        Cancellation: safe.
        """
        await self._free.acquire()
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            yield writing
        finally:
            self._end_at_eof(reading)

    def _end_at_eof(self, reading: int) -> None:
        loop = asyncio.get_running_loop()

        def end() -> None:
            loop.remove_reader(reading)
            os.close(reading)
            late.cancel()
            self._free.release()

        late = loop.call_later(BOOT_MAX_S, end)
        loop.add_reader(reading, end)
