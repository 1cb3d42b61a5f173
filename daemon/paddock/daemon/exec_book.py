"""Which commands are known in this machine, and how each of them is, as far as its record on disk and this daemon tell.

An id names one command for as long as its record is kept. What is true stands on disk; in memory is only when each one
began, and those that have not ended. Nothing here asks the keeper. For `executions`, and for whoever only looks.
"""

import asyncio
import collections
import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from paddock.bus import clock, logs
from paddock.contracts import errors
from paddock.daemon import exec_record, exec_shelf

log = logs.get(__name__)

Tell = Callable[[], None]


class Live:
    """A command that has not ended, as far as anybody knows.

    `is_kept`: a keeper has it; else only its process is watched. `stdout` and `stderr` are what it wrote, as far as the
    keeper told whoever watches. `release` is set at its end, and when nobody shall wait for that any longer.
    """

    __slots__ = ("is_kept", "is_over", "record", "release", "stderr", "stdout", "watchers")

    def __init__(self, record: exec_record.Record) -> None:
        self.record = record
        self.is_kept = True
        self.is_over = False
        self.release = asyncio.Event()
        self.stdout = self.stderr = 0
        self.watchers: list[Tell] = []

    def grow(self, said: Mapping[str, object]) -> None:
        """Take in what the keeper says of it, and tell whoever watches."""
        stdout, stderr = said.get("stdout"), said.get("stderr")
        if isinstance(stdout, int) and isinstance(stderr, int):
            self.stdout, self.stderr = max(self.stdout, stdout), max(self.stderr, stderr)
        if said.get("state") == "running" and not self.record.pid:
            # It was found on disk while it was being started.
            self.record.add({**said, "is": "started"})
        self.wake()

    def wake(self) -> None:
        """Tell whoever watches that something may be new."""
        for tell in self.watchers:
            tell()


class Book:
    """All commands that are known."""

    def __init__(
        self, folder: pathlib.Path, now: clock.Clock, *, kept_s: float, on_found: Callable[[str], None]
    ) -> None:
        """Make one; `load` it before use.

        Args:
            folder: Where the records are.
            now: For the ends that nobody saw, and for `kept_s`.
            kept_s: How long after its end a command is known.
            on_found: Hears the id of a command without an end that is on disk and was not known.
        """
        self.folder = folder
        self._on_found = on_found
        self._clock = now
        self._kept_ms = int(kept_s * 1000)
        self._began: dict[str, int] = {}
        """When each command began that is known, in unix ms; the oldest first."""
        self._live: dict[str, Live] = {}
        self._unsaved: dict[str, exec_record.Record] = {}
        """Ended, and a full disk kept that from being written."""
        self._readers: collections.Counter[str] = collections.Counter()

    async def load(self) -> None:
        """Learn what is on disk; all that has no end is taken to live."""
        for record in await asyncio.to_thread(exec_shelf.read_all, self.folder):
            self._note(record)

    def find(self, exec_id: str) -> exec_record.Record | None:
        """What is known of a command; None when there is no such.

        Raises:
            errors.Fault: Its record cannot be read.
        """
        live = self._live.get(exec_id)
        if live is not None:
            return live.record
        record = self._unsaved.get(exec_id) or exec_shelf.read(self.folder, exec_id)
        if record is not None and exec_id not in self._began:
            self._note(record)
            log.info("execution_began", exec_id=exec_id, pid=record.pid)
            if exec_id in self._live:
                self._on_found(exec_id)
        return record

    def record(self, exec_id: str) -> exec_record.Record:
        """What is known of a command.

        Raises:
            errors.NotFound: There is no such.
        """
        record = self.find(exec_id)
        if record is None:
            raise errors.NotFound(f"there is no command {exec_id[:128]!r} in this machine")
        return record

    def live(self, exec_id: str) -> Live | None:
        """The command while it has not ended."""
        return self._live.get(exec_id)

    def all_live(self) -> Sequence[Live]:
        """Every command that has not ended."""
        return list(self._live.values())

    async def until_over(self, exec_id: str, within_s: float) -> None:
        """Wait for its end, or so long; less when the daemon is to stop."""
        live = self._live.get(exec_id)
        if live is not None and within_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await live.release.wait()

    def newest(self, before: str = "", *, is_running: bool = False) -> Iterator[str]:
        """Ids, the newest first: of all commands, or of those that run; of those older than `before`.

        Raises:
            errors.NotFound: `before` is not known.
        """
        if before and before not in self._began:
            raise errors.NotFound(f"there is no command {before[:128]!r} in this machine to go on after")
        known = reversed(self._began)
        if before:
            for exec_id in known:
                if exec_id == before:
                    break
        return (one for one in known if not is_running or one in self._live)

    @contextlib.contextmanager
    def reading(self, exec_id: str) -> Iterator[None]:
        """What it wrote is not removed inside the block."""
        self._readers[exec_id] += 1
        try:
            yield
        finally:
            self._readers[exec_id] -= 1
            if not self._readers[exec_id]:
                del self._readers[exec_id]

    def reread(self, live: Live) -> exec_record.Record:
        """What its record tells by now; as it was when that cannot be read."""
        try:
            live.record = exec_shelf.read(self.folder, live.record.id) or live.record
        except errors.Fault as fault:
            log.warning("record_not_read", exec_id=live.record.id, error=fault.detail)
        return live.record

    def end(self, live: Live, line: Mapping[str, object] | None = None) -> None:
        """It has ended, as `line` tells or its record does."""
        record = live.record
        if line is not None:
            record.add(dict(line))
        on_disk = self.reread(live)
        if not (on_disk.is_ended or on_disk.is_failed):
            live.record = self._unsaved[record.id] = record
        self._live.pop(record.id, None)
        log.info("execution_ended", exec_id=record.id, exit_code=record.exit_code, signal=record.signal)
        live.is_over = True
        live.release.set()
        live.wake()

    def lose(self, live: Live) -> None:
        """It has ended, or was never started, and nobody saw it."""
        record, now_ms = live.record, self._clock.now_ms()
        try:
            exec_record.append_lost(self.folder / record.id, now_ms)
        except OSError as error:
            log.warning("loss_not_noted", exec_id=record.id, error=os.strerror(error.errno or 0))
        log.warning("execution_lost", exec_id=record.id, was_started=record.pid > 0)
        self.end(live, {"is": "lost", "endedAtMs": now_ms})

    def release_all(self) -> None:
        """Nobody shall wait any longer for an end."""
        for live in self._live.values():
            live.release.set()

    async def compact(self) -> None:
        """Forget what ended longer ago than is kept, and is not being read."""
        before_ms = self._clock.now_ms() - self._kept_ms
        for exec_id in [one for one, began_at_ms in self._began.items() if began_at_ms < before_ms]:
            if exec_id in self._live or self._readers[exec_id]:
                continue
            try:
                record = self.find(exec_id)
            except errors.Fault as fault:
                log.warning("record_not_read", exec_id=exec_id, error=fault.detail)
                continue
            if record is None or record.ended_at_ms < before_ms:
                self._began.pop(exec_id, None)
                self._unsaved.pop(exec_id, None)
                await asyncio.to_thread(exec_shelf.remove, self.folder, exec_id)

    def _note(self, record: exec_record.Record) -> None:
        self._began[record.id] = record.began_at_ms
        if not (record.is_ended or record.is_failed):
            self._live[record.id] = Live(record)
