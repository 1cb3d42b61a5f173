"""Uploads under way: each in order, any number side by side, and none kept for ever.

The parts of an upload are taken in the order in which they came, and a commit waits for those before it. What nobody goes on
with is removed after a day, and so is what is known of uploads that are done.
"""

import asyncio
import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from paddock.bus import clock
from paddock.contracts import errors, files
from paddock.daemon import calls, file_slices, file_upload

REST_S = 10.0
"""An upload that nobody went on with for so long holds its file open no more."""
_MS = 1000


def _committed(entry: "_Entry") -> None:
    entry.commit = entry.committing = None


class _Part:
    """A part that waits, with whoever waits for it."""

    __slots__ = ("blob", "params", "taken")

    def __init__(
        self, params: files.WriteParams, blob: bytes, taken: "asyncio.Future[files.WriteResult]"
    ) -> None:
        self.params = params
        self.blob = blob
        self.taken = taken


class _Entry:
    """One upload in memory. One thing happens to it at a time; parts that come meanwhile are then taken together."""

    def __init__(self, upload: file_upload.Upload, on_idle: Callable[[], None]) -> None:
        self.upload = upload
        self.commit: asyncio.Future[files.FileInfo] | None = None
        self.committing: files.CommitParams | None = None
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self._current: asyncio.Future[Any] | None = None
        self._parts: list[_Part] = []
        self.used_at = self._loop.time()
        self.is_resting = False

    @property
    def is_quiet(self) -> bool:
        return self._current is None

    def rest(self) -> None:
        """Let go of the file; only when it is `quiet`."""
        self.run(self.upload.rest)
        self.is_resting = True

    def write(self, params: files.WriteParams, blob: bytes) -> "asyncio.Future[files.WriteResult]":
        taken: asyncio.Future[files.WriteResult] = self._loop.create_future()
        self._parts.append(_Part(params, blob, taken))
        self._go_on()
        return taken

    def run(self, work: Callable[[], None]) -> "asyncio.Future[None]":
        """Do something on a thread; only when it is `quiet`. Not to be cancelled: the thread would not stop."""
        done = self._loop.run_in_executor(None, work)
        self.occupy(done)
        return done

    def occupy(self, future: "asyncio.Future[Any]") -> None:
        """Let nothing else happen until `future` is done; only when it is `quiet`."""
        self._current = future
        self.used_at, self.is_resting = self._loop.time(), False
        future.add_done_callback(self._free)

    async def quiet(self, *, but_for_commit: bool = False) -> None:
        """Wait until nothing happens, or only a commit; what is begun then, without another wait, is next."""
        while self._current is not None and not (but_for_commit and self._current is self.commit):
            await asyncio.wait({self._current})

    def _free(self, _: "asyncio.Future[Any]") -> None:
        self._current = None
        self._go_on()
        if self._current is None:
            self._on_idle()

    def _go_on(self) -> None:
        if self._current is None and self._parts:
            parts, self._parts = self._parts, []
            pairs = [(part.params, part.blob) for part in parts]
            hop = self._loop.run_in_executor(None, self.upload.take, pairs)
            # Before `_free`: whoever waits for quiet finds the answers given.
            hop.add_done_callback(functools.partial(_tell, parts))
            self.occupy(hop)


def _tell(parts: list[_Part], hop: "asyncio.Future[list[file_upload.Outcome]]") -> None:
    for at, part in enumerate(parts):
        if part.taken.done():
            continue
        if hop.cancelled():
            part.taken.cancel()
            continue
        error = hop.exception()
        outcome = hop.result()[at] if error is None else error
        if isinstance(outcome, BaseException):
            part.taken.set_exception(outcome)
        else:
            part.taken.set_result(outcome)


class Uploads:
    """All uploads of this daemon."""

    def __init__(self, folder: pathlib.Path, home: str, now: clock.Clock) -> None:
        """Make the index.

        Args:
            folder: Where records are kept; made when first needed.
            home: What `~` means.
            now: Judges what is abandoned.
        """
        self._folder = folder
        self._home = home
        self._clock = now
        self._entries: dict[str, _Entry] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def write(self, params: files.WriteParams, blob: bytes) -> files.WriteResult:
        """Take one part; see `file_upload.Upload.take`."""
        return await self._entry(params.upload).write(params, blob)

    async def settle(self, upload: str) -> None:
        """Return when the parts that came before are taken."""
        entry = self._entries.get(upload)
        if entry is not None:
            await entry.quiet(but_for_commit=True)

    def begin_commit(self, params: files.CommitParams) -> calls.Work[files.FileInfo]:
        """Begin the commit of an upload that is settled; a second one meanwhile gets the first one's end.

        Raises:
            errors.Conflict: Another commit of this upload is under way.
        """
        entry = self._entry(params.upload)
        if entry.commit is None:
            entry.commit, entry.committing = file_slices.start(entry.upload.commit(params)), params
            entry.commit.add_done_callback(lambda _: _committed(entry))
            entry.occupy(entry.commit)
        elif entry.committing != params:
            raise errors.Conflict(f"cannot write {params.path}: another commit of this upload is under way")
        return file_slices.work(entry.commit, f"write {params.path}", can_stop=False)

    async def abort(self, params: files.AbortParams) -> None:
        """Give one up; it need not be known."""
        entry = await self._quiet(params.upload)
        await asyncio.shield(entry.run(entry.upload.discard))

    def _entry(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            upload = file_upload.Upload(name, self._folder, self._home)
            entry = self._entries[name] = _Entry(upload, functools.partial(self._on_idle, name))
        return entry

    async def _quiet(self, name: str) -> _Entry:
        """The entry of an upload when nothing happens to it; what is begun with it without another wait is next."""
        # One that was waited for may have been forgotten, and another one be at work in its place.
        while not (entry := self._entry(name)).is_quiet:
            await entry.quiet()
        return entry

    def _on_idle(self, name: str) -> None:
        entry = self._entries[name]
        if not entry.upload.is_open:
            del self._entries[name]
        elif self._timer is None and not entry.is_resting:
            self._timer = asyncio.get_running_loop().call_later(REST_S, self._let_rest)

    def _let_rest(self) -> None:
        """Let those rest that had nothing to do for long, and look again while there are others."""
        loop, self._timer = asyncio.get_running_loop(), None
        awake = [entry for entry in self._entries.values() if not entry.is_resting]
        for entry in awake:
            if entry.is_quiet and loop.time() - entry.used_at >= REST_S:
                entry.rest()
        if not all(entry.is_resting for entry in awake):
            self._timer = loop.call_later(REST_S, self._let_rest)

    async def remove_abandoned(self) -> None:
        """Remove what nobody went on with for a day, and records of what was done long ago."""
        now_s = self._clock.now_ms() / _MS
        for name in await asyncio.to_thread(self._known):
            entry = await self._quiet(name)
            await asyncio.shield(entry.run(functools.partial(entry.upload.expire, now_s)))

    def _known(self) -> list[str]:
        records: Iterator[file_upload.Record | None] = iter(())
        with contextlib.suppress(OSError):
            records = map(file_upload.read, list(self._folder.iterdir()))
        return [record.upload for record in records if record is not None]
