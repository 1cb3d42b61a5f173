"""Waiting for a machine to get somewhere: woken by its events, bounded in time, and right without any event."""

import asyncio
from collections.abc import Callable
from typing import Final

from paddock.gateway import events_feed
from paddock.store import engine, machines

LOOK_S: Final = 1.0
"""Between two looks when no event comes: one may have been lost."""


class Waiting:
    """For methods with `waitS`."""

    def __init__(self, store: engine.Store, feed: events_feed.EventsFeed) -> None:
        self._store, self._feed = store, feed
        self._waiting: set[asyncio.Event] = set()
        self._has_ended = False

    def end(self) -> None:
        """The gateway stops: whoever waits gets the machine as it is."""
        self._has_ended = True
        for changed in self._waiting:
            changed.set()

    async def until(
        self, machine: machines.Machine, is_there: Callable[[machines.Machine], bool], *, wait_s: float
    ) -> machines.Machine:
        """The machine as soon as `is_there`, or as it is after `wait_s` seconds.

        Args:
            machine: As it was seen last.
            is_there: What is waited for.
            wait_s: 0 answers at once.

        Cancellation: safe.
        """
        if wait_s <= 0 or is_there(machine):
            return machine
        changed = asyncio.Event()

        def on_event(item: events_feed.Item | None) -> None:
            if item is None or item.machine == machine.id:
                changed.set()

        self._waiting.add(changed)
        try:
            with self._feed.listening(on_event):
                return await self._look(machine.id, is_there, changed, wait_s)
        finally:
            self._waiting.discard(changed)

    async def _look(
        self,
        machine_id: str,
        is_there: Callable[[machines.Machine], bool],
        changed: asyncio.Event,
        wait_s: float,
    ) -> machines.Machine:
        ends_at = asyncio.get_running_loop().time() + wait_s
        while True:
            # Cleared before looking: what changes while we look is looked at again.
            changed.clear()
            async with self._store.read() as tx:
                machine = await machines.get(tx, machine_id)
            left_s = ends_at - asyncio.get_running_loop().time()
            if is_there(machine) or left_s <= 0 or self._has_ended:
                return machine
            await _set_within(changed, min(left_s, LOOK_S))


async def _set_within(changed: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        pass
