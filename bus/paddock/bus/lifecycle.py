"""Run a process: start its loops, stop them in order, never leave one behind.

The only module that may start a task outside a TaskGroup. A loop that ends or fails before it was asked to is
never passed over: it ends the process, and whoever supervises the process starts it again.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

Loop = Callable[[asyncio.Event], Awaitable[None]]
"""A long-running part of a process. Returns soon after its `stop` is set; any earlier return is a bug."""


class LoopEndedError(RuntimeError):
    """A loop returned although nobody asked it to stop."""


async def run(loops: Mapping[str, Loop], stop: asyncio.Event, *, drain_s: float) -> None:
    """Run `loops` until `stop` is set or one of them fails.

    Args:
        loops: Name to loop; the name is the asyncio task's name in logs and dumps.
        stop: Set by the signal handler. Every loop sees the same event.
        drain_s: Seconds the loops get to finish what is in flight after `stop`.

    Raises:
        TimeoutError: A loop was still running `drain_s` after `stop`; it was cancelled.
        ExceptionGroup: A loop failed; its siblings were cancelled first.

    Cancellation: safe; every loop is cancelled and waited for.
    """
    async with asyncio.timeout(None) as deadline, asyncio.TaskGroup() as tasks:
        for name, loop in loops.items():
            tasks.create_task(_guarded(name, loop, stop), name=name)
        await stop.wait()
        deadline.reschedule(asyncio.get_running_loop().time() + drain_s)


async def _guarded(name: str, loop: Loop, stop: asyncio.Event) -> None:
    await loop(stop)
    if not stop.is_set():
        raise LoopEndedError(f"loop {name} ended although nobody asked it to stop")


async def every(period_s: float, stop: asyncio.Event) -> AsyncIterator[None]:
    """Yield at once and then every `period_s` seconds, until `stop` is set.

    The body of the loop is never cut short by `stop`: it ends between two rounds. A body that takes longer
    than the period is followed by the next round at once; rounds that were missed are not made up for.
    """
    clock = asyncio.get_running_loop().time
    due = clock()
    while not stop.is_set():
        yield
        due = max(due + period_s, clock())
        await pause(due - clock(), stop)


async def pause(seconds: float, stop: asyncio.Event) -> bool:
    """Wait so many seconds or until `stop`, whichever is first.

    Returns:
        Whether to go on: False once `stop` is set.
    """
    if seconds <= 0:
        await asyncio.sleep(0)
        return not stop.is_set()
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return True
    return False


def on_signals(stop: asyncio.Event) -> None:
    """Let SIGTERM and SIGINT set `stop`; a second one exits at once with 128 + its number."""
    loop = asyncio.get_running_loop()

    def handle(number: signal.Signals) -> None:
        if stop.is_set():
            # Not sys.exit: whatever keeps the first stop from ending would keep that from ending too.
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle, number)


class Wakeup:
    """Something changed, look again. Many may set it, one waits; set while nobody waits, it is kept.

    Several changes before one look are one wake-up, so whoever waits must look at everything.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def set(self) -> None:
        """Wake the one who waits, now or when it next waits."""
        self._changed.set()

    async def wait(self, timeout_s: float, stop: asyncio.Event | None = None) -> bool:
        """Wait until it is set, `stop` is set or the time is up.

        Returns:
            Whether something changed; False for a look that is due anyway, and for `stop`.

        Cancellation: safe; a wake-up that was not taken is kept.
        """
        if not self._changed.is_set():
            await self._either(timeout_s, stop)
        changed = self._changed.is_set()
        self._changed.clear()
        return changed

    async def _either(self, timeout_s: float, stop: asyncio.Event | None) -> None:
        events = [self._changed] if stop is None else [self._changed, stop]
        waits = [asyncio.create_task(event.wait(), name="wakeup") for event in events]  # noqa: TID251
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
