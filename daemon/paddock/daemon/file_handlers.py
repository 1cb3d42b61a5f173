"""The methods `file.*` and `port.open` of the daemon.

What changes something is done once for its call id (see `calls`), but for parts of uploads, whose offsets say as much.
"""

import asyncio
import pathlib
from collections.abc import Callable
from typing import TypeVar

import msgspec

from paddock.bus import channels, clock, handlers
from paddock.contracts import errors, files, rpc
from paddock.daemon import (
    calls,
    file_changes,
    file_find,
    file_info,
    file_read,
    file_slices,
    port_open,
    uploads,
)

_ANSWER_S = 2.0
"""Kept of the time a reply may be held, for the way back."""

ParamsT = TypeVar("ParamsT", bound=msgspec.Struct)
ResultT = TypeVar("ResultT", bound=msgspec.Struct)


class FileHandlers:
    """The methods, with what they need."""

    def __init__(self, *, ledger: calls.Calls, home: str, folder: pathlib.Path, now: clock.Clock) -> None:
        """Make them.

        Args:
            ledger: Where calls with a side effect are kept.
            home: What `~` means.
            folder: The daemon's own; `uploads` in it is ours.
            now: Judges what is abandoned.
        """
        self._calls = ledger
        self._home = home
        self._own = str(folder.resolve())
        self._uploads = uploads.Uploads(folder / "uploads", home, now)

    def table(self) -> tuple[handlers.Handler, ...]:
        """For `rpc.<S>.call`."""
        return (
            handlers.channel(files.READ, self.read),
            handlers.handler(files.WRITE, self.write),
            handlers.handler(files.COMMIT, self.commit),
            handlers.handler(files.ABORT, self.abort),
            handlers.handler(files.STAT, self.stat),
            handlers.handler(files.LIST, self.list),
            handlers.handler(files.FIND, self.find),
            self._once(files.MKDIR, lambda params: file_changes.mkdir(params, self._home)),
            self._once(files.MOVE, lambda params: file_changes.move(params, self._home, self._own)),
            self._once(files.REMOVE, lambda params: file_changes.remove(params, self._home, self._own)),
            self._once(files.CHMOD, lambda params: file_changes.chmod(params, self._home)),
            port_open.handler(),
        )

    async def remove_abandoned(self) -> None:
        """Remove uploads nobody went on with for a day. Now and then, at the leisure of whoever calls it."""
        await self._uploads.remove_abandoned()

    async def read(
        self, params: files.ReadParams, _context: handlers.CallContext
    ) -> channels.Opened[files.Opened, files.ReadEnd]:
        opening = asyncio.get_running_loop().run_in_executor(None, file_read.begin, params, self._home)
        try:
            reading = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise
        return channels.Opened(files.Opened(info=reading.info), reading.run)

    async def write(self, params: files.WriteParams, context: handlers.CallContext) -> files.WriteResult:
        return await self._uploads.write(params, context.blob)

    async def commit(self, params: files.CommitParams, context: handlers.CallContext) -> msgspec.Raw:
        await self._uploads.settle(params.upload)
        return await self._calls.once(files.COMMIT, params, context, self._uploads.begin_commit)

    async def abort(self, params: files.AbortParams, _context: handlers.CallContext) -> rpc.Done:
        await self._uploads.abort(params)
        return rpc.Done()

    async def stat(self, params: files.StatParams, context: handlers.CallContext) -> files.FileInfo:
        doing = f"read all of {params.path}"
        return await _in_time(file_info.look(params, self._home), context, doing)

    async def list(self, params: files.ListParams, context: handlers.CallContext) -> files.ListResult:
        doing = f"list {params.path}"
        return await _in_time(file_info.list_folder(params, self._home), context, doing)

    async def find(self, params: files.FindParams, context: handlers.CallContext) -> files.FindResult:
        doing = f"search all of {params.path}"
        return await _in_time(file_find.find(params, self._home), context, doing)

    def _once(
        self,
        method: rpc.Method[ParamsT, ResultT],
        work: "Callable[[ParamsT], file_slices.Slices[ResultT]]",
    ) -> handlers.Handler:
        def begin(params: ParamsT) -> calls.Work[ResultT]:
            return file_slices.work(file_slices.start(work(params)), method.name, can_stop=True)

        async def handle(params: ParamsT, context: handlers.CallContext) -> msgspec.Raw:
            return await self._calls.once(method, params, context, begin)

        return handlers.handler(method, handle)


async def _in_time(work: "file_slices.Slices[ResultT]", context: handlers.CallContext, doing: str) -> ResultT:
    """The outcome, or a fault in time: a reply held for too long would never arrive."""
    try:
        async with asyncio.timeout(max(context.held_s - _ANSWER_S, context.held_s / 2)):
            return await file_slices.start(work)
    except TimeoutError:
        raise errors.DeadlineExceeded(f"cannot {doing} in the time an answer may take") from None


def _close(opening: "asyncio.Future[file_read.Reading]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
