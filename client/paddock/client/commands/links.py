"""What a person is told about a cut link: nothing, unless it takes long."""

import asyncio
from collections.abc import Callable
from typing import Final

from paddock.client.commands import failures

SAID_AFTER_S: Final = 2.0
"""A gateway is restarted within less; who was not slowed down need not know."""


class Notice:
    """Called with False when a link was cut and with True when one works again, as the client library does.

    `is_told`: the person knows that it is cut.
    """

    def __init__(self, say: Callable[[str], None] = failures.say) -> None:
        self.is_told = False
        self._say = say
        self._is_cut = False
        self._due: asyncio.TimerHandle | None = None

    def __call__(self, is_up: bool) -> None:
        if is_up:
            self.close()
            if self.is_told:
                self._say("the link is back")
            self._is_cut = self.is_told = False
        elif not self._is_cut:
            self._is_cut = True
            self._due = asyncio.get_running_loop().call_later(SAID_AFTER_S, self._late)

    def close(self) -> None:
        """Say nothing that is not yet due."""
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _late(self) -> None:
        self.is_told = True
        self._say("the link was cut; trying to get it back, nothing is lost")
