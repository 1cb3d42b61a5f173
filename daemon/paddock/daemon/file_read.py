"""`file.read`: one file from an offset on, in frames, with the digest of all of it at the end.

The file is opened once: replaced meanwhile, the reading is still of the old one. Written meanwhile, it is a `conflict`, but
for files that only grew: then what was read is what the file held when it was opened, which is checked. Of files of /proc,
whose size nobody knows, all that is there is read. No more than two slices are in memory.
"""

import asyncio
import hashlib
import os

from paddock.bus import channels
from paddock.contracts import errors, files, rpc
from paddock.daemon import file_info, file_place, file_slices, paths

_SLICE_BYTES = rpc.FRAME_WINDOW * rpc.FRAME_BYTES
"""Read at once, while as much is sent: fewer hops between threads."""


class Reading:
    """An open file on its way; made by `begin`, and closed by `run`."""

    def __init__(self, fd: int, info: files.FileInfo, params: files.ReadParams) -> None:
        """Only `begin` calls this."""
        self._fd = fd
        self._info = info
        self._doing = f"read {params.path}"
        self._opened = os.fstat(fd)
        self._at = params.offset
        self._end = self._bound(params)
        # From the middle with a length, nobody waits for the digest of the whole.
        is_hashed = params.length is None or not params.offset or not self._opened.st_size
        self._hashed = hashlib.sha256() if is_hashed else None
        self._hit_eof = False

    @property
    def info(self) -> files.FileInfo:
        return self._info

    def _bound(self, params: files.ReadParams) -> int | None:
        """Where the reading ends; None for the end of a file that does not tell its size."""
        size = self._opened.st_size or None
        if params.length is None:
            return size
        end = params.offset + params.length
        return end if size is None else min(end, size)

    def close(self) -> None:
        os.close(self._fd)

    async def run(self, channel: channels.Channel) -> files.ReadEnd:
        """Send it.

        Raises:
            errors.Conflict: The file was written meanwhile.
            errors.BadOffset: It ends before the offset.
            errors.Fault: The file system refused.
        """
        ahead: asyncio.Future[memoryview] | None = None
        loop = asyncio.get_running_loop()
        try:
            await file_slices.start(self._catch_up())
            sent = self._at
            ahead = loop.run_in_executor(None, self._slice)
            while piece := await ahead:
                ahead = loop.run_in_executor(None, self._slice)
                for begin in range(0, len(piece), rpc.FRAME_BYTES):
                    frame = piece[begin : begin + rpc.FRAME_BYTES]
                    await channel.send(frame, offset=sent)
                    sent += len(frame)
            return await file_slices.start(self._finish())
        finally:
            if ahead is None or ahead.done():
                self.close()
            else:  # a thread still reads
                ahead.add_done_callback(self._close_after)

    def _close_after(self, ahead: "asyncio.Future[memoryview]") -> None:
        self.close()
        if not ahead.cancelled():
            ahead.exception()

    def _catch_up(self) -> "file_slices.Slices[None]":
        """Hash what lies before the offset."""
        if self._hashed is None or not self._at:
            return
        with file_place.refusals(self._doing):
            before = yield from file_info.hash_into(self._hashed, self._fd, self._at)
        if before < self._at:
            raise self._changed() if self._opened.st_size else _beyond(self._doing, before)

    def _slice(self) -> memoryview:
        """What comes next, hashed; nothing at the end."""
        wanted = _SLICE_BYTES if self._end is None else min(_SLICE_BYTES, self._end - self._at)
        with file_place.refusals(self._doing):
            piece = os.pread(self._fd, wanted, self._at) if wanted > 0 else b""
        self._at += len(piece)
        self._hit_eof = wanted > 0 and not piece
        if self._hashed is not None:
            self._hashed.update(piece)
        return memoryview(piece)

    def _finish(self) -> "file_slices.Slices[files.ReadEnd]":
        with file_place.refusals(self._doing):
            yield from self._check_unchanged()
        size = self._opened.st_size
        is_whole = self._hit_eof or (size and self._at >= size)
        sha256 = self._hashed.hexdigest() if self._hashed is not None and is_whole else ""
        return files.ReadEnd(size=self._at if is_whole else size, sha256=sha256)

    def _check_unchanged(self) -> "file_slices.Slices[None]":
        opened, now = self._opened, os.fstat(self._fd)
        if not opened.st_size or (now.st_size, now.st_mtime_ns) == (opened.st_size, opened.st_mtime_ns):
            return
        if now.st_size <= opened.st_size:
            raise self._changed()
        if self._hashed is not None:
            again = hashlib.sha256()
            yield from file_info.hash_into(again, self._fd, self._at)
            if again.digest() != self._hashed.digest():
                raise self._changed()

    def _changed(self) -> errors.Conflict:
        return errors.Conflict(f"cannot {self._doing}: it was written meanwhile")


def begin(params: files.ReadParams, home: str) -> Reading:
    """Open the file. Blocks: call it in a thread.

    Raises:
        errors.BadOffset: The offset lies beyond the end; `data` says where that is.
        errors.Conflict: It is not the version asked for.
        errors.Fault: It cannot be opened, or is no regular file.
    """
    path, doing = paths.resolve(params.path, home), f"read {params.path}"
    with file_place.refusals(doing):
        fd = file_info.open_regular(path, doing)
        try:
            found = os.fstat(fd)
            info = file_info.Describer().info(path, found)
            _check(params, info, doing, is_empty=_is_empty(fd, found))
            return Reading(fd, info, params)
        except BaseException:
            os.close(fd)
            raise


def _check(params: files.ReadParams, info: files.FileInfo, doing: str, *, is_empty: bool) -> None:
    if params.version and params.version != info.version:
        raise errors.Conflict(f"cannot {doing}: it is another file by now", data={"version": info.version})
    if params.offset > info.size and (info.size or is_empty):
        raise _beyond(doing, info.size)


def _is_empty(fd: int, found: os.stat_result) -> bool:
    """Nothing in it; files of /proc only seem so."""
    return not found.st_size and not os.pread(fd, 1, 0)


def _beyond(doing: str, size: int) -> errors.BadOffset:
    return errors.BadOffset(f"cannot {doing}: it ends at {size}", data={"sizeBytes": size})
