"""Following one machine until it settles: the phases it went through, and how long each took.

Events say at once that something happened; what happened is read from the machine and its history, so a lost event
costs seconds and never the truth.
"""

import asyncio
import dataclasses
import datetime
import itertools
from collections.abc import Callable
from typing import Final

from paddock.client import client as gateway
from paddock.client import websocket
from paddock.contracts import events, phases
from paddock.contracts.api import machines

SETTLED: Final = frozenset(phases.Phase) - phases.UNFINISHED
"""A machine on its way to active does not stay in any other phase."""
LOOK_S = 5.0
"""How long events may be silent before we look ourselves."""
_MOVES: Final = frozenset(move.event for move in phases.MOVES) | {events.MACHINE_CREATED}


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One phase a machine was in; `took_ms` is None while it still is."""

    phase: phases.Phase
    generation: int
    began_ms: int
    took_ms: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Move:
    phase: phases.Phase
    generation: int
    at_ms: int


class Timeline:
    """The phases of one machine since a moment, in the gateway's time; told the same twice, it shows it once."""

    def __init__(self, machine: machines.Machine, *, since: str) -> None:
        self.machine = machine
        self.doing = ""
        """The step of its setup that is under way, as the gateway calls it; empty between steps."""
        self._since_ms = moment_ms(since)
        self._moves: dict[int, _Move] = {}

    def take(self, machine: machines.Machine, history: machines.History) -> None:
        """What the gateway says of the machine now."""
        self.machine = machine
        for move in history.moves:
            self._add(move.sequence, move.phase, move.generation, move.at)

    def happened(self, event: events.Event) -> phases.Phase | None:
        """Take one event; the phase the machine entered by it, None when it entered none."""
        self.doing = _doing(event, self.doing)
        phase, generation = event.data.get("phase"), event.data.get("generation")
        if event.type not in _MOVES or phase not in set(phases.Phase) or not isinstance(generation, int):
            return None
        self._add(event.sequence, phases.Phase(phase), generation, event.time)
        return phases.Phase(phase)

    def steps(self) -> list[Step]:
        """Oldest first; a phase entered again while in it goes on."""
        entered: list[_Move] = []
        for _, move in sorted(self._moves.items()):
            if not entered or (entered[-1].phase, entered[-1].generation) != (move.phase, move.generation):
                entered.append(move)
        return [
            Step(move.phase, move.generation, move.at_ms, None if after is None else after.at_ms - move.at_ms)
            for move, after in itertools.zip_longest(entered, entered[1:])
        ]

    def _add(self, sequence: int, phase: phases.Phase, generation: int, at: str) -> None:
        at_ms = moment_ms(at)
        if at_ms >= self._since_ms:
            # A new dict: whoever draws the old one in another thread is not disturbed.
            self._moves = {**self._moves, sequence: _Move(phase, generation, at_ms)}


async def settle(
    client: gateway.Client,
    timeline: Timeline,
    *,
    until: frozenset[phases.Phase] = SETTLED,
    on_change: Callable[[], None] = lambda: None,
) -> machines.Machine:
    """Wait until the timeline's machine is in one of `until`; the timeline is kept up to date meanwhile.

    `on_change` is called whenever the timeline grew. There is no deadline of its own: every phase on the way has a
    limit at which the machine fails.

    Returns:
        The machine as it then is; whether that is good is for the caller to see.

    Raises:
        errors.Fault: The gateway could not be asked any more.

    Cancellation: safe; the machine goes on.
    """
    machine_id = timeline.machine.id
    # Subscribed before looking: what happens in between is in one or the other.
    async with client.events(machine_id=machine_id) as feed:
        while True:
            machine = await client.machines.get(machine_id)
            timeline.take(machine, await client.machines.history(machine_id))
            on_change()
            if machine.phase in until:
                return machine
            await _news(feed, timeline, until, on_change)


async def _news(
    feed: websocket.EventFeed,
    timeline: Timeline,
    until: frozenset[phases.Phase],
    on_change: Callable[[], None],
) -> None:
    """Take events until one says the end is reached, or it is time to look."""
    try:
        async with asyncio.timeout(LOOK_S):
            async for received in feed:
                doing, entered = timeline.doing, timeline.happened(received.event)
                if entered in until:
                    return
                if entered is not None or timeline.doing != doing:
                    on_change()
    except TimeoutError:
        return


def _doing(event: events.Event, before: str) -> str:
    if event.type == events.MACHINE_SETUP_STEP_STARTED:
        return str(event.data.get("title", ""))
    if event.type == events.MACHINE_SETUP_STEP_FINISHED or event.type in _MOVES:
        return ""
    return before


def moment_ms(moment: str) -> int:
    """An RFC 3339 moment as unix milliseconds."""
    return round(datetime.datetime.fromisoformat(moment).timestamp() * 1000)
