"""What is written to a command's stdin: in order, each byte once, at the pace the command reads.

A write waits for the ones before it and for the command, at most `keeper_protocol.WRITE_S`, and never holds up anybody else.
"""

import collections
import contextlib
import os
import termios
from collections.abc import Callable

from paddock.daemon import keeper_loop, keeper_protocol

PIECE_BYTES = 64 * 1024
_LFLAG, _CC = 3, 6
"""Where `tcgetattr` has the local modes and the control characters."""

Answer = Callable[[keeper_protocol.Header], None]


class _Write:
    """One write that waits for its turn or for the command."""

    __slots__ = ("answer", "at", "data", "deadline", "eof", "is_begun")

    def __init__(self, data: bytes, at: int | None, *, eof: bool, answer: Answer) -> None:
        self.data = memoryview(data)
        self.at = at
        self.eof = eof
        self.answer = answer
        self.is_begun = False
        self.deadline: keeper_loop.Timer | None = None


class Feed:
    """The stdin of one command."""

    __slots__ = (
        "_ends_line",
        "_eof_at",
        "_fd",
        "_is_terminal",
        "_is_waiting",
        "_loop",
        "_writes",
        "accepted_bytes",
    )

    def __init__(self, loop: keeper_loop.Loop, fd: int, *, is_terminal: bool) -> None:
        """Args: fd: Non-blocking, closed by us; -1 when the command has no stdin."""
        self._loop = loop
        self._fd = fd
        self._is_terminal = is_terminal
        self._is_waiting = False
        self._ends_line = True
        self._eof_at = -1
        self._writes: collections.deque[_Write] = collections.deque()
        self.accepted_bytes = 0
        """All that is in the pipe or was read."""

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def write(self, data: bytes, at: int | None, *, eof: bool, answer: Answer) -> None:
        """Write `data`, whose place in all of stdin is `at`; `answer` is called once."""
        write = _Write(data, at, eof=eof, answer=answer)
        self._writes.append(write)
        if len(self._writes) == 1:
            self._go_on()
        if write in self._writes:
            write.deadline = self._loop.later(keeper_protocol.WRITE_S, lambda: self._give_up(write))

    def drop(self, answers: Callable[[Answer], bool]) -> None:
        """Give up the writes whose asker is gone: it will ask again, with an offset."""
        for write in [one for one in self._writes if answers(one.answer)]:
            self._remove(write)
        self._go_on()

    def close(self) -> None:
        """Nothing more; the writes that wait are answered."""
        self._shut()
        self._go_on()

    def _go_on(self) -> None:
        """Carry out what can be; one that waits for the command stays first."""
        while self._writes:
            write = self._writes[0]
            if not write.is_begun and not self._begin(write):
                continue
            if write.data and self._fd >= 0 and not self._put(write):
                self._wait(True)
                return
            self._finish(write)
        self._wait(False)

    def _begin(self, write: _Write) -> bool:
        """Cut off what was taken before; False when the write was refused."""
        write.is_begun = True
        if write.at is not None and write.at > self.accepted_bytes:
            self._refuse(write, {"kind": "bad_offset", "sizeBytes": self.accepted_bytes})
            return False
        if write.at is not None:
            write.data = write.data[self.accepted_bytes - write.at :]
        if self._fd < 0 and (write.data or self._eof_at < 0):
            self._refuse(write, {"kind": "closed"})
            return False
        return True

    def _put(self, write: _Write) -> bool:
        """Write once; True when all is in, or when nobody reads any more."""
        try:
            size = os.write(self._fd, write.data[:PIECE_BYTES])
        except BlockingIOError:
            return False
        except OSError:
            self._shut()
            return True
        self._ends_line = write.data[size - 1] == ord("\n")
        self.accepted_bytes += size
        write.data = write.data[size:]
        return not write.data

    def _finish(self, write: _Write) -> None:
        if write.eof and not write.data and self._fd >= 0:
            self._end_input(is_repeated=write.at is not None and self._eof_at == self.accepted_bytes)
        self._remove(write)
        write.answer({"accepted": self.accepted_bytes, "closed": self._fd < 0})

    def _end_input(self, *, is_repeated: bool) -> None:
        self._eof_at = self.accepted_bytes
        if not self._is_terminal:
            self._shut()
        elif not is_repeated:
            self._type_eof()

    def _type_eof(self) -> None:
        with contextlib.suppress(termios.error, OSError):
            modes = termios.tcgetattr(self._fd)
            character: bytes = modes[_CC][termios.VEOF]
            # Within a line the first one only hands over the line.
            twice = modes[_LFLAG] & termios.ICANON and not self._ends_line
            os.write(self._fd, character * (2 if twice else 1))
            self._ends_line = True

    def _shut(self) -> None:
        if self._fd >= 0:
            self._wait(False)
            os.close(self._fd)
            self._fd = -1

    def _wait(self, is_waiting: bool) -> None:
        if is_waiting and not self._is_waiting:
            self._loop.watch(self._fd, self._go_on, keeper_loop.WRITABLE)
        elif self._is_waiting and not is_waiting:
            self._loop.forget(self._fd)
        self._is_waiting = is_waiting

    def _refuse(self, write: _Write, error: keeper_protocol.Header) -> None:
        self._remove(write)
        write.answer({"error": error})

    def _remove(self, write: _Write) -> None:
        self._writes.remove(write)
        if write.deadline is not None:
            write.deadline.cancel()

    def _give_up(self, write: _Write) -> None:
        was_first = self._writes[0] is write
        self._remove(write)
        write.answer({"accepted": self.accepted_bytes, "closed": self._fd < 0})
        if was_first:
            self._go_on()
