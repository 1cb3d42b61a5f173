"""Machines as they were a moment ago, for methods that only need to know where to send a call.

An event of a machine drops it at once; without any event it is looked at again within `KEPT_S`. What it says is never
the ground for a change, and a daemon that is gone is noticed by the bus, not here.
"""

import asyncio
from typing import Final

from paddock.gateway import events_feed
from paddock.store import engine, machines

KEPT_S: Final = 1.0
KEPT_MAX: Final = 20_000


class MachineCache:
    """Reads machines through; give `on_event` to the events feed."""

    def __init__(self, store: engine.Store, *, kept_s: float = KEPT_S) -> None:
        self._store = store
        self._kept_s = kept_s
        self._known: dict[str, tuple[machines.Machine, float]] = {}
        self._drops = 0

    async def get(self, machine_id: str) -> machines.Machine:
        """The machine.

        Raises:
            errors.NotFound: There is none.
        """
        now = asyncio.get_running_loop().time()
        known = self._known.get(machine_id)
        if known is not None and known[1] > now:
            return known[0]
        drops = self._drops
        async with self._store.read() as tx:
            machine = await machines.get(tx, machine_id)
        # An event that came while we read may be newer than what we read.
        if drops == self._drops:
            if len(self._known) >= KEPT_MAX:
                self._known.clear()
            self._known[machine_id] = (machine, now + self._kept_s)
        return machine

    def forget(self, machine_id: str) -> None:
        """Look at it anew: it was changed here."""
        self._drops += 1
        self._known.pop(machine_id, None)

    def on_event(self, item: events_feed.Item | None) -> None:
        """Drop what changed; everything when something may have been missed."""
        if item is None:
            self._drops += 1
            self._known.clear()
        elif item.machine:
            self.forget(item.machine)
