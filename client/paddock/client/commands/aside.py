"""Blocking calls on our own terminal and pipes, made aside: a thread each, that never holds up the exit.

Not for files: those end by themselves, and `asyncio.to_thread` will do.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


class Aside:
    """One thread that makes the calls it is given, one after the other."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._loop = asyncio.get_running_loop()
        # A daemon: it may be stuck in a pipe nobody empties when the process ends.
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def do(self, call: Callable[[], ResultT]) -> ResultT:
        """Make a call and wait for what it returns or raises. Cancelled, the call goes on and its result is dropped."""
        done: asyncio.Future[ResultT] = self._loop.create_future()
        self._jobs.put((call, done))
        return await done

    def close(self) -> None:
        """Let the thread end after what it was given."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, done = job
            try:
                result = call()
            except (OSError, ValueError) as error:  # ValueError: closed meanwhile
                self._tell(done, lambda done=done, error=error: done.set_exception(error))  # type: ignore[misc]
            else:
                self._tell(done, lambda done=done, result=result: done.set_result(result))  # type: ignore[misc]

    def _tell(self, done: asyncio.Future[Any], how: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(lambda: None if done.done() else how())
