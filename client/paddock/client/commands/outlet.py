"""Our standard output and error for bytes of a command: written as they are, at the pace of whoever reads them."""

import errno
import io
import select
import sys
from typing import Any, Final, Literal, Self, TextIO

from paddock.client.commands import aside
from paddock.contracts import errors

Name = Literal["stdout", "stderr"]
BROKEN_PIPE: Final = 141
"""As shells have it: what would be ended by SIGPIPE, because nobody reads it any more."""


class HungUp(Exception):
    """The terminal we write to is gone."""


class Outlet:
    """Used inside `async with`. It writes in a thread: a pager that is not read on holds up neither signals nor the link."""

    def __init__(self) -> None:
        self._streams = {"stdout": _bytes_of(sys.stdout), "stderr": _bytes_of(sys.stderr)}
        self._thread = aside.Aside("output")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._thread.close()

    async def write(self, name: Name, data: bytes | memoryview) -> None:
        """Write all of it.

        Raises:
            BrokenPipeError: Nobody reads there any more.
            HungUp: It was a terminal, and is gone.
            errors.InvalidParams: It cannot be written for another reason, such as a full disk.
        """
        stream = self._streams[name]
        if stream is None:
            return
        try:
            await self._thread.do(lambda: _write_all(stream, data))
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.EIO:
                raise HungUp from error
            why = error.strerror if isinstance(error, OSError) else "it is closed"
            raise errors.InvalidParams(f"cannot write to our {name}: {why}") from error


def _bytes_of(stream: TextIO | None) -> io.RawIOBase | None:
    """Below all buffers: their locks would be waited for at the exit."""
    if stream is None:  # closed before we were started
        return None
    stream.flush()
    raw: Any = getattr(stream.buffer, "raw", stream.buffer)
    below: io.RawIOBase = raw
    return below


def _write_all(stream: io.RawIOBase, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        written = stream.write(left)
        if written is None:  # somebody who shares it made it non-blocking
            poll = select.poll()
            poll.register(stream.fileno(), select.POLLOUT)
            poll.poll()
        else:
            left = left[written:]
