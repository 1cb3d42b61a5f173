"""Long work on files, done in slices on threads: it can be stopped between two, and lets others have the threads.

Work is a generator that yields often; it runs until a slice is used up, and is closed where it stands when its future is
cancelled. Blocking calls belong in it, the event loop's do not.
"""

import asyncio
from collections.abc import Generator
from time import monotonic
from typing import Generic, TypeVar

import msgspec

from paddock.contracts import errors
from paddock.daemon import calls

SLICE_S = 0.05

ResultT = TypeVar("ResultT")
StructT = TypeVar("StructT", bound=msgspec.Struct)
Slices = Generator[None, None, ResultT]


def start(work: "Slices[ResultT]") -> "asyncio.Future[ResultT]":
    """Begin it; cancelling the future stops it within a slice.

    When the loop ends first, the future is cancelled.
    """
    run = _Run(work)
    run.go_on()
    return run.done


class _Run(Generic[ResultT]):
    def __init__(self, work: "Slices[ResultT]") -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[ResultT] = self._loop.create_future()

    def go_on(self) -> None:
        try:
            slice_ = self._loop.run_in_executor(None, self._advance)
        except RuntimeError:  # the loop takes no more work: it is ending
            self._work.close()
            self.done.cancel()
        else:
            slice_.add_done_callback(self._on_slice)

    def _advance(self) -> tuple[ResultT] | None:
        """Run for one slice; the result in a tuple when it came."""
        ends_at = monotonic() + SLICE_S
        while monotonic() < ends_at:
            try:
                next(self._work)
            except StopIteration as end:
                return (end.value,)
        return None

    def _on_slice(self, slice_: "asyncio.Future[tuple[ResultT] | None]") -> None:
        if slice_.cancelled():
            self.done.cancel()
            return
        error = slice_.exception()
        if self.done.done():
            self._work.close()
        elif error is not None:
            self.done.set_exception(error)
        elif (came := slice_.result()) is not None:
            self.done.set_result(came[0])
        else:
            self.go_on()


def work(done: "asyncio.Future[StructT]", doing: str, *, can_stop: bool) -> "calls.Work[StructT]":
    """It as work of a call; stopped in the middle, by `call.cancel` or the loop's end, its outcome is `unknown`."""

    def outcome() -> StructT:
        if done.cancelled():
            raise errors.OutcomeUnknown(f"cannot {doing}: it was stopped in the middle")
        return done.result()

    return calls.Work(done, outcome, cancel=done.cancel if can_stop else None)
