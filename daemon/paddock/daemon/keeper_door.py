"""The keeper's door: its socket, and the connections of daemons to it.

A connection that sends what is no message is closed. One that does not read hears less: of commands it watches it gets
the newest totals once it reads again, and it is closed when even answers pile up.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from time import monotonic

from paddock.daemon import keeper_loop, keeper_protocol

READ_BYTES = 256 * 1024
BACKLOG_BYTES_MAX = 16 * 1024 * 1024
"""Answers and ends that a connection has not read; totals wait apart and cost nothing."""
TURN_S = 0.002
"""Each start takes a millisecond; who sends many of them must not hold up the output of what runs."""
_ACCEPT_AGAIN_S = 1.0
_CREDENTIALS = struct.Struct("iII")

Serve = Callable[["Connection", keeper_protocol.Header, bytes], None]


class Connection:
    """One daemon, as the keeper sees it."""

    __slots__ = (
        "_behind", "_decoder", "_loop", "_messages", "_on_close", "_out", "_serve", "_socket", "_totals", "watched",
    )  # fmt: skip

    def __init__(
        self,
        loop: keeper_loop.Loop,
        connected: socket.socket,
        serve: Serve,
        totals: Callable[[str], keeper_protocol.Header],
        on_close: "Callable[[Connection], None]",
    ) -> None:
        """Args: totals: The message about a command that grew, as it is now; empty when it is gone."""
        connected.setblocking(False)
        self._loop = loop
        self._socket = connected
        self._serve = serve
        self._totals = totals
        self._on_close = on_close
        self._decoder = keeper_protocol.Decoder()
        self._messages: Iterator[tuple[keeper_protocol.Header, bytes]] | None = None
        self._out = bytearray()
        self._behind: set[str] = set()
        self.watched: set[str] = set()
        """The commands whose growth it wants to hear of."""
        loop.watch(connected.fileno(), self._on_ready)

    @property
    def is_open(self) -> bool:
        return self._socket.fileno() >= 0

    def tell(self, header: keeper_protocol.Header) -> None:
        """Say something that must be heard; never closes the connection, nor waits."""
        if self.is_open and len(self._out) <= BACKLOG_BYTES_MAX:
            self._send(keeper_protocol.encode(header))

    def tell_totals(self, exec_id: str) -> None:
        """Say how much there is of a command now, or once it reads again."""
        if self._out:
            self._behind.add(exec_id)
        elif totals := self._totals(exec_id):
            self.tell(totals)

    def close(self) -> None:
        if self.is_open:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._on_close(self)

    def _send(self, message: bytes) -> None:
        if not self._out:
            try:
                sent = self._socket.send(message)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # reading tells of it as well, and closes
            if sent == len(message):
                return
            message = message[sent:]
            self._loop.change(self._socket.fileno(), keeper_loop.READABLE | keeper_loop.WRITABLE)
        self._out += message

    def _on_ready(self) -> None:
        # What came before is served first; it goes on by itself.
        is_well = len(self._out) <= BACKLOG_BYTES_MAX and self._flush()
        if not is_well or not (self._messages is not None or self._receive()):
            self.close()

    def _flush(self) -> bool:
        if not self._out:
            return True
        try:
            del self._out[: self._socket.send(memoryview(self._out)[:READ_BYTES])]
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not self._out:
            self._loop.change(self._socket.fileno(), keeper_loop.READABLE)
            behind, self._behind = self._behind, set()
            for exec_id in behind:
                self.tell_totals(exec_id)
        return True

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        self._messages = self._decoder.feed(data)
        return self._serve_some()

    def _serve_some(self) -> bool:
        """Serve what came, for as long as a turn may take; False when it is no message."""
        until = monotonic() + TURN_S
        while self._messages is not None:
            if monotonic() > until:
                self._loop.later(0, self._serve_more)
                break
            try:
                message = next(self._messages, None)
            except keeper_protocol.BrokenError:
                return False
            if message is None:
                self._messages = None
            else:
                self._serve(self, *message)
        return True

    def _serve_more(self) -> None:
        if self.is_open and not self._serve_some():
            self.close()


class Door:
    """The socket in the folder; whoever holds the keeper's lock opens it."""

    def __init__(
        self, loop: keeper_loop.Loop, folder_fd: int, welcome: Callable[[socket.socket], None]
    ) -> None:
        """Open it, in the place of one that was left behind.

        Raises:
            OSError: It cannot be made.
        """
        self._loop = loop
        self._welcome = welcome
        self._folder_fd = folder_fd
        with contextlib.suppress(FileNotFoundError):
            os.unlink(keeper_protocol.SOCKET_NAME, dir_fd=folder_fd)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        mask = os.umask(0o177)
        try:
            # The way through our own descriptor: a path of a socket has at most 107 bytes.
            self._socket.bind(f"/proc/self/fd/{folder_fd}/{keeper_protocol.SOCKET_NAME}")
        finally:
            os.umask(mask)
        self._socket.listen(16)
        self._socket.setblocking(False)
        loop.watch(self._socket.fileno(), self._on_knock)

    def close(self) -> None:
        """Take it away: who comes now starts another keeper."""
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        with contextlib.suppress(OSError):
            os.unlink(keeper_protocol.SOCKET_NAME, dir_fd=self._folder_fd)

    def _on_knock(self) -> None:
        try:
            connected, _ = self._socket.accept()
        except BlockingIOError:
            return
        except OSError:
            # No descriptor left: one turn after the other would be spent on it.
            self._loop.forget(self._socket.fileno())
            self._loop.later(_ACCEPT_AGAIN_S, self._listen_again)
            return
        if _user_of(connected) in {0, os.getuid()}:
            self._welcome(connected)
        else:
            connected.close()

    def _listen_again(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.watch(self._socket.fileno(), self._on_knock)


def _user_of(connected: socket.socket) -> int:
    told = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(told)[1]
    return user
