"""Trying again after a fault that passes: with growing pauses, until nothing has worked for so long.

For what goes on over cut links and restarted gateways: it knows where it stopped, so a repetition does nothing twice. Who
asks for the first time wants to know soon; who was in the middle of something waits a machine's restart out.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from paddock.contracts import errors

PATIENCE_S = 300.0
FIRST_PATIENCE_S = 2.0
"""Before anything worked: who asks a gateway that is not there wants to know."""
DELAY_S, DELAY_MAX_S = 0.1, 5.0
STEADY_S = 10.0
"""A link that held for so long was a good one; one that breaks sooner, again and again, wears the patience out."""
LASTING: Final = (errors.KeeperLost, errors.Internal, errors.CannotSpawn)
"""Retryable by whoever asks, but not something that passes while we wait."""

OnLink = Callable[[bool], None]
"""Told False when a link was cut and True when it is back."""
ResultT = TypeVar("ResultT")


class Patience:
    """One thing that shall go on. `has_worked` says that the machine answered already."""

    def __init__(
        self,
        *,
        has_worked: bool = False,
        patience_s: float | None = None,
        on_link: OnLink | None = None,
    ) -> None:
        self._has_worked = has_worked
        self._patience_s = patience_s
        self._on_link = on_link
        self._delay_s = DELAY_S
        self._give_up_at: float | None = None
        self._joined_at: float | None = None
        self._is_told_of = False

    def joined(self) -> None:
        """The link is there; whether anything comes over it is still to be seen."""
        self._has_worked = True
        self._joined_at = asyncio.get_running_loop().time()
        if self._is_told_of:
            self._is_told_of = False
            if self._on_link is not None:
                self._on_link(True)

    def worked(self) -> None:
        """It goes on; the next fault has the whole patience before it."""
        if self._give_up_at is not None or not self._has_worked:
            self.joined()
            self._give_up_at, self._delay_s = None, DELAY_S

    async def after(self, fault: errors.Fault) -> None:
        """Wait before the next try.

        Raises:
            errors.Fault: The one given: trying again cannot help, or has not helped for too long.

        Cancellation: safe.
        """
        now = asyncio.get_running_loop().time()
        if not self._passes(fault):
            raise fault
        if self._joined_at is not None and now - self._joined_at > STEADY_S:
            self._give_up_at, self._delay_s = None, DELAY_S
        self._joined_at = None
        if self._give_up_at is None:
            self._give_up_at = now + self._limit_s()
        self._tell_of_cut()
        if now + self._delay_s > self._give_up_at:
            raise fault
        await asyncio.sleep(self._delay_s * random.uniform(1.0, 1.5))  # noqa: S311 - jitter
        self._delay_s = min(self._delay_s * 2, DELAY_MAX_S)

    def _tell_of_cut(self) -> None:
        if self._has_worked and not self._is_told_of:
            self._is_told_of = True
            if self._on_link is not None:
                self._on_link(False)

    def _limit_s(self) -> float:
        if self._has_worked:
            return PATIENCE_S if self._patience_s is None else self._patience_s
        return FIRST_PATIENCE_S

    def _passes(self, fault: errors.Fault) -> bool:
        if not fault.retryable or isinstance(fault, LASTING):
            return False
        # The gateway knows that the machine is away and since when: only who was at work there waits for it.
        return self._has_worked or not isinstance(fault, errors.MachineOffline)


async def until_done(patience: Patience, ask: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """The result of `ask`, asked again after faults that pass; for what does nothing twice.

    Raises:
        errors.Fault: Trying again cannot help, or has not helped for too long.

    Cancellation: as safe as `ask` is.
    """
    while True:
        try:
            result = await ask()
        except errors.Fault as fault:
            await patience.after(fault)
        else:
            patience.worked()
            return result
