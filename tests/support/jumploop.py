"""An event loop whose clock jumps over idle time: a minute of waiting costs no seconds.

Only for tests without sockets, threads or child processes: their wake-ups look like idleness.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpSelector(selectors.DefaultSelector):
    skipped_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout else timeout)
        if not ready and timeout:
            self.skipped_s += timeout
        return ready


class JumpLoop(asyncio.SelectorEventLoop):
    """The loop; `time` is real time plus what was skipped."""

    def __init__(self) -> None:
        self._jump = _JumpSelector()
        super().__init__(self._jump)

    def time(self) -> float:
        return super().time() + self._jump.skipped_s


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end in a jumping loop."""
    with asyncio.Runner(loop_factory=JumpLoop) as runner:
        return runner.run(main)


def seconds() -> int:
    """The running loop's time in whole seconds."""
    return round(asyncio.get_running_loop().time())
