"""Loops that run beside a block of code, and end in order when it does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from types import TracebackType

from paddock.bus import lifecycle


class _Kept:
    """Holds the block's exception back until the loops have ended, so it comes out as itself and not in a group."""

    error: Exception | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        # Cancellation goes on: the task group needs to see it.
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None


@contextlib.asynccontextmanager
async def run(loops: Mapping[str, lifecycle.Loop], *, drain_s: float) -> AsyncIterator[None]:
    """Run `loops` beside the block; at its end they are asked to stop and get `drain_s` for it.

    Raises:
        ExceptionGroup: A loop failed; the block was cancelled. What the block itself raises comes out unchanged.

    Cancellation: the loops are cancelled, not asked to stop.
    """
    stop, kept = asyncio.Event(), _Kept()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(lifecycle.run(loops, stop, drain_s=drain_s), name="beside")
        with kept:
            yield
        stop.set()
    if kept.error is not None:
        raise kept.error
