"""Signals to this process while something is in the foreground."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final

BASE: Final = 128
"""As shells have it: a command ended by signal 9 is 137."""


@contextlib.contextmanager
def handled(handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Inside the block each of these signals calls its function, in the loop; then all is as before.

    Only the main thread has signals; in others nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in handlers}
    try:
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        yield
    finally:
        for number, known in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, known)


def exit_code(name: str) -> int:
    """128 and the number of a signal; 128 when there is none of that name here."""
    known = signal.Signals.__members__.get(name if name.startswith("SIG") else f"SIG{name}")
    return BASE + (known.value if known else 0)
