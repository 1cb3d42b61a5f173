"""The way to a machine: its row says whether it may be asked and under which name, the bus whether it is there.

Every wait ends. A machine that is not connected is known at once, and the refusal says when it was last heard. What may be
repeated without harm is repeated while a machine or the bus is away for a moment.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

import msgspec

from paddock.bus import caller, channel_client, channels, clock
from paddock.contracts import errors, ids, phases, rpc, subjects
from paddock.gateway import last_seen, machine_cache, moments
from paddock.store import machines as stored

OPEN_S: Final = 20.0
"""For opening a channel; what is slow in a machine is the disk."""
AWAY_S: Final = 30.0
"""How long a machine that was there is asked in vain: a daemon that was restarted, a bus that broke off."""
AGAIN_S: Final = 0.1
AWAY: Final = (
    errors.ChannelBroken,
    errors.NoAnswer,
    errors.MachineOffline,
    errors.BusDown,
    errors.ShuttingDown,
    errors.TooManyInFlight,
)
"""Says nothing about what was asked, only that the machine cannot be asked now."""
_GONE: Final = frozenset({phases.Phase.DELETING, phases.Phase.DELETED})

ParamsT = TypeVar("ParamsT", bound=msgspec.Struct)
ResultT = TypeVar("ResultT", bound=msgspec.Struct)
EndT = TypeVar("EndT", bound=msgspec.Struct)


class MachineLink:
    """Asks machines. Rows come from the cache: the bus is the judge of who is there."""

    def __init__(
        self,
        cache: machine_cache.MachineCache,
        asks: caller.Caller,
        seen: last_seen.LastSeen,
        wall: clock.Clock,
    ) -> None:
        self._cache, self._caller, self._seen, self._clock = cache, asks, seen, wall

    async def check(self, machine_id: str) -> None:
        """Refuse what cannot be asked in its phase; says nothing about whether it is connected.

        Raises:
            errors.Fault: As `ask`.
        """
        _check_phase(await self._cache.get(machine_id))

    async def ask(
        self,
        machine_id: str,
        method: rpc.Method[ParamsT, ResultT],
        params: ParamsT,
        *,
        timeout_s: float,
        call_id: str | None = None,
        blob: bytes | memoryview = b"",
    ) -> ResultT:
        """Ask once; see `caller.Caller.call`.

        Raises:
            errors.NotFound: There is no such machine.
            errors.MachineNotReady: Not yet.
            errors.MachineGone: Not any more.
            errors.WrongPhase: It failed.
            errors.MachineOffline: Its daemon is not connected; `lastSeenAt` says since when.
            errors.Fault: Whatever the machine answered.
        """
        machine = await self._cache.get(machine_id)
        _check_phase(machine)
        try:
            return await self._caller.call(
                _subject(machine),
                method,
                params,
                timeout_s=timeout_s,
                call_id=call_id or "",
                blob=blob,
            )
        except errors.MachineOffline as fault:
            raise await self._offline(machine) from fault

    async def insist(
        self,
        machine_id: str,
        method: rpc.Method[ParamsT, ResultT],
        params: ParamsT,
        *,
        timeout_s: float,
        try_s: float | None = None,
        call_id: str | None = None,
        blob: bytes | memoryview = b"",
        was_there: bool = False,
    ) -> ResultT:
        """Ask what may be asked twice, and again while no answer comes, for `AWAY_S` at most.

        Args:
            machine_id: Whom.
            method: What.
            params: Of it.
            timeout_s: Seconds for all of it.
            try_s: Seconds for one try: an answer may have been lost with the machine's connection.
            call_id: The same for each try; made when None and needed.
            blob: Beside the parameters.
            was_there: It answered a moment ago, so it is not given up at once when it is not there now.

        Raises:
            errors.Fault: As `ask`.
        """
        loop = asyncio.get_running_loop()
        ends_at, gives_up_at = loop.time() + timeout_s, 0.0
        if method.has_side_effect and not call_id:
            call_id = ids.new_ulid(self._clock.now_ms())
        while True:
            try:
                left_s = max(0.0, min(ends_at - loop.time(), try_s or timeout_s))
                return await self.ask(
                    machine_id, method, params, timeout_s=left_s, call_id=call_id, blob=blob
                )
            except AWAY as fault:
                was_there = was_there or isinstance(fault, errors.NoAnswer | errors.ShuttingDown)
                gives_up_at = gives_up_at or loop.time() + AWAY_S
                if not was_there or loop.time() + AGAIN_S >= min(ends_at, gives_up_at):
                    raise
            await asyncio.sleep(AGAIN_S)

    @contextlib.asynccontextmanager
    async def open(
        self,
        machine_id: str,
        method: rpc.ChannelMethod[ParamsT, ResultT, EndT],
        params: ParamsT,
        *,
        timeout_s: float = OPEN_S,
    ) -> AsyncIterator[channel_client.OpenChannel[ResultT, EndT]]:
        """An open channel; see `caller.Caller.open`.

        Args:
            machine_id: Whose.
            method: What is opened.
            params: For it.
            timeout_s: Seconds for the opening.

        Raises:
            errors.Fault: As `ask`.
        """
        machine = await self._cache.get(machine_id)
        _check_phase(machine)
        async with contextlib.AsyncExitStack() as stack:
            try:
                channel = await stack.enter_async_context(
                    self._caller.open(_subject(machine), method, params, timeout_s=timeout_s)
                )
            except errors.MachineOffline as fault:
                raise await self._offline(machine) from fault
            yield channel

    async def _offline(self, machine: stored.Machine) -> errors.MachineOffline:
        seen = await self._seen.of([machine])
        return errors.MachineOffline(
            f"cannot reach machine {machine.id}: its daemon is not connected",
            data={"lastSeenAt": moments.text(seen.get(machine.id))},
        )


class Following(Generic[ParamsT, ResultT, EndT]):
    """A channel to read from that is opened again where it broke off, so that nobody notices.

    `AWAY_S` after it broke, or when the machine has lost what comes next, it is over.
    """

    def __init__(
        self,
        link: MachineLink,
        machine_id: str,
        method: rpc.ChannelMethod[ParamsT, ResultT, EndT],
        go_on: Callable[[], ParamsT],
    ) -> None:
        """Make one.

        Args:
            link: The way.
            machine_id: To whom.
            method: What is opened.
            go_on: Parameters that go on where we are.
        """
        self._link, self._machine_id, self._method, self._go_on = link, machine_id, method, go_on

    async def run(
        self,
        on_opened: Callable[[ResultT], Awaitable[None]],
        on_frame: Callable[[channels.Frame], Awaitable[None]],
    ) -> EndT:
        """Read to the end.

        Args:
            on_opened: Told each time it was opened, before any frame.
            on_frame: Told each frame. The machine sends on as it returns.

        Raises:
            errors.Fault: As `MachineLink.ask`, or whatever the machine said at last.
        """
        loop = asyncio.get_running_loop()
        gives_up_at: float | None = 0.0
        while True:
            try:
                async with self._link.open(self._machine_id, self._method, self._go_on()) as channel:
                    await on_opened(channel.opened)
                    gives_up_at = None
                    async for frame in channel:
                        await on_frame(frame)
                    return await channel.finish()
            except AWAY:
                gives_up_at = loop.time() + AWAY_S if gives_up_at is None else gives_up_at
                if loop.time() >= gives_up_at:
                    raise
            await asyncio.sleep(AGAIN_S)


def members(result: msgspec.Struct) -> dict[str, Any]:
    """Its fields by name: structs of the bus and results of the gateway have the same, which a test holds them to."""
    return {name: getattr(result, name) for name in result.__struct_fields__}


def _subject(machine: stored.Machine) -> str:
    return subjects.rpc_call(ids.sandbox_id(machine.id, machine.generation))


def _check_phase(machine: stored.Machine) -> None:
    if machine.phase in phases.CALLABLE:
        return
    facts: dict[str, Any] = {"phase": machine.phase}
    if machine.phase in _GONE:
        raise errors.MachineGone(f"cannot ask machine {machine.id}: it is {machine.phase}", data=facts)
    if machine.phase in phases.UNFINISHED:
        raise errors.MachineNotReady(
            f"cannot ask machine {machine.id} yet: it is {machine.phase}", data=facts
        )
    raise errors.WrongPhase(f"cannot ask machine {machine.id}: it is {machine.phase}", data=facts)
