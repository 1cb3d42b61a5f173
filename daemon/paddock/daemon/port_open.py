"""`port.open`: a connection to a port of this machine, as a channel.

Bytes go both ways at the pace of whoever takes them, and each side may end its own direction first. The machine's own
loopback addresses only.
"""

import asyncio
import contextlib
import socket
import struct

from paddock.bus import channels, handlers
from paddock.contracts import errors, ports, rpc

ADDRESSES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
CONNECT_S = 5.0
"""For all addresses; what does not answer on loopback in that time is not going to."""
_RESET = struct.pack("ii", 1, 0)
"""A linger of no time."""


def handler() -> handlers.Handler:
    """For the table of calls."""
    return handlers.channel(ports.OPEN, connect)


async def connect(
    params: ports.OpenParams, _context: handlers.CallContext
) -> channels.Opened[ports.Open, ports.Closed]:
    """Connect.

    Raises:
        errors.PortRefused: Nothing listens there, or it did not accept in time.
    """
    tunnel = await _first(params.port)
    return channels.Opened(ports.Open(address=tunnel.address), tunnel.run)


async def _first(port: int) -> "Tunnel":
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CONNECT_S):
            for family, address in ADDRESSES:
                connection = await _connected(family, address, port)
                if connection is not None:
                    return Tunnel(connection, address)
    raise errors.PortRefused(
        f"cannot connect to port {port}: nothing in the machine accepts connections there"
    )


async def _connected(family: socket.AddressFamily, address: str, port: int) -> socket.socket | None:
    try:
        connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError:  # a kernel without IPv6
        return None
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except OSError:
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    return connection


class Tunnel:
    """One connection between a channel and a port."""

    def __init__(self, connection: socket.socket, address: str) -> None:
        self.address = address
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._sent_bytes = 0
        self._received_bytes = 0
        self._is_reset = False

    async def run(self, channel: channels.Channel) -> ports.Closed:
        """Carry bytes until both directions have ended, or the port has reset the connection.

        Cancellation: the connection is reset, so the application learns that its peer is gone.
        """
        is_over = False
        try:
            async with asyncio.TaskGroup() as tasks:
                to_port = tasks.create_task(self._to_port(channel), name="to_port")
                if not await self._from_port(channel):
                    to_port.cancel()
            is_over = not self._is_reset
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            self._close(in_order=is_over)
        return ports.Closed(
            sent_bytes=self._sent_bytes, received_bytes=self._received_bytes, reset=self._is_reset
        )

    async def _to_port(self, channel: channels.Channel) -> None:
        try:
            async for frame in channel:
                await self._loop.sock_sendall(self._connection, frame.data)
                self._sent_bytes += len(frame.data)
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            # It takes nothing more; what it said before is still on its way.
            self._is_reset = True

    async def _from_port(self, channel: channels.Channel) -> bool:
        """Whether this direction ended in order."""
        try:
            while data := await self._loop.sock_recv(self._connection, rpc.FRAME_BYTES):
                await channel.send(data, offset=self._received_bytes)
                self._received_bytes += len(data)
        except OSError:
            self._is_reset = True
            return False
        await channel.send_eof()
        return True

    def _close(self, *, in_order: bool) -> None:
        if not in_order:
            with contextlib.suppress(OSError):
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._connection.close()
