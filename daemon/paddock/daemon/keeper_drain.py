"""One output of a command, from its pipe or terminal to the disk.

A bounded piece a turn. When the disk is full it stops reading, so the command waits, and tries again every half second;
nothing is lost. After the command's end only what still fits is kept of grandchildren's output, and the rest is passed over.
"""

import contextlib
import errno
import fcntl
import os
import struct
import termios
from collections.abc import Callable

from paddock.daemon import keeper_loop, output

PIECE_BYTES = 256 * 1024
PIPE_BYTES = 256 * 1024
"""A pipe that was found full is made this large: a flood then costs fewer turns."""
RETRY_S = 0.5
_FOUND_FULL_BYTES = 64 * 1024
_INT = struct.Struct("i")
_buffer = memoryview(bytearray(PIECE_BYTES))
"""Shared by all: what is read is written before anybody else reads."""


class Drain:
    """One output, read until its last writer is gone."""

    __slots__ = (
        "_fd", "_is_over", "_is_wide", "_loop", "_on_change", "_owed_bytes", "_retry", "_spool", "_unsaved", "stalled",
    )  # fmt: skip

    def __init__(
        self, loop: keeper_loop.Loop, fd: int, spool: output.Spool, on_change: Callable[[], None]
    ) -> None:
        """Begin to read.

        Args:
            fd: Non-blocking; closed by us.
            on_change: Called when there is more on disk, when it stalls or goes on, and at the end.
        """
        self._loop = loop
        self._fd = fd
        self._spool = spool
        self._on_change = on_change
        self._unsaved = b""
        self._owed_bytes = 0
        self._retry: keeper_loop.Timer | None = None
        self._is_over = False
        self._is_wide = False
        self.stalled = ""
        """Why nothing is read just now."""
        loop.watch(fd, self._on_readable)

    @property
    def total_bytes(self) -> int:
        return self._spool.total_bytes

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    @property
    def is_settled(self) -> bool:
        """Whether all that was there when `settle` was called is on disk."""
        return not self.is_open or (self._owed_bytes <= 0 and not self._unsaved)

    def settle(self) -> None:
        """The command has ended: take what it left in the pipe, as far as the disk can."""
        if not self.is_open:
            return
        # Of a terminal some may still be on its way to us; its end, or whoever waits for that a little, knows.
        self._owed_bytes = _INT.unpack(fcntl.ioctl(self._fd, termios.FIONREAD, _INT.pack(0)))[0]
        # Also once when nothing is owed: that is how its end is seen.
        while not self._unsaved and self._take() and self._owed_bytes >= 0:
            pass

    def let_go(self) -> None:
        """The end was told: what grandchildren write from now on must not cost anything that was kept."""
        self._is_over = True

    def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._spool.close()

    def _on_readable(self) -> None:
        if not self._unsaved and (self._take() or not self.is_open):
            self._on_change()

    def _take(self) -> bool:
        """Read once and write; False when nothing more is there now."""
        try:
            size = os.readv(self._fd, (_buffer,))
        except BlockingIOError:
            self._owed_bytes = 0
            return False
        except OSError:
            size = 0  # EIO: the last user of the terminal is gone
        if not size:
            self.close()
            return False
        if size >= _FOUND_FULL_BYTES and not self._is_wide:
            self._widen()
        self._owed_bytes -= size
        self._save(_buffer[:size])
        return True

    def _save(self, data: memoryview) -> None:
        if self._is_over:
            data = data[: self._spool.room_bytes]
        try:
            done = self._spool.write(data)
        except OSError as error:
            self._stall(data, error.errno or 0)
            return
        if done < len(data):
            self._stall(data[done:], errno.ENOSPC)

    def _stall(self, rest: memoryview, number: int) -> None:
        if self._is_over:
            return
        self._unsaved = bytes(rest)
        self.stalled = f"cannot write the output: {os.strerror(number).lower()}"
        self._loop.forget(self._fd)
        self._retry = self._loop.later(RETRY_S, self._try_again)

    def _try_again(self) -> None:
        rest, self._unsaved, self.stalled = self._unsaved, b"", ""
        self._loop.watch(self._fd, self._on_readable)
        self._save(memoryview(rest))
        self._on_change()

    def _widen(self) -> None:
        self._is_wide = True
        with contextlib.suppress(OSError):  # a terminal; or the user has too much in pipes already
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
