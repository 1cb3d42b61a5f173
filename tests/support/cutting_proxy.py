"""A network that breaks: passes bytes between a client and a server, and cuts connections after so many of them."""

import asyncio
import collections
from types import TracebackType
from typing import Self

READ_BYTES = 64 * 1024
HELD_UP_S = 0.3


class CuttingProxy:
    """Listens at `url` for a server at a port of this computer.

    `cuts` are how many bytes from the server each next connection passes on before it is cut, in the middle of whatever
    they are; `cuts_up` likewise for bytes to the server. With none left, a connection is not cut.
    """

    def __init__(self, server_port: int) -> None:
        self.cuts: collections.deque[int] = collections.deque()
        self.cuts_up: collections.deque[int] = collections.deque()
        self.cut_count = 0
        self.connections = 0
        self.passed_bytes = 0
        self.is_held_up = asyncio.Event()
        """Set when a receiver did not take anything for a moment."""
        self.server_port = server_port
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Event] = {}

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        # Not cancelled: asyncio's own callback would call that an error.
        for writer, is_over in tuple(self._open.items()):
            writer.transport.abort()
            await is_over.wait()

    def cut_all(self) -> None:
        """End what is open, without a word."""
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        is_over = self._open[writer] = asyncio.Event()
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        except ConnectionError:
            writer.transport.abort()
        else:
            await self._join(reader, writer, server_reader, server_writer)
        del self._open[writer]
        is_over.set()

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        """Pass on both ways, until either ends."""
        down = asyncio.create_task(self._pass_on(server_reader, writer, self.cuts, b"HTTP/1.1 101"))
        up = asyncio.create_task(self._pass_on(reader, server_writer, self.cuts_up, b"GET /ws"))
        done, left = await asyncio.wait({down, up}, return_when=asyncio.FIRST_COMPLETED)
        self.cut_count += any(one.result() for one in done)
        writer.transport.abort()
        server_writer.transport.abort()
        for one in left:
            one.cancel()
        await asyncio.wait({down, up})

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        cuts: collections.deque[int],
        begins: bytes,
    ) -> bool:
        """Until the end of either side, or until the cut that was ordered; whether it was that."""
        left: int | None = None
        try:
            while data := await reader.read(READ_BYTES):
                # Plain calls pass whole: a cut is for the connections that carry streams.
                if left is None and cuts and data.startswith(begins):
                    left = cuts.popleft()
                if left is not None:
                    data, left = data[:left], left - len(data)
                writer.write(data)
                self.passed_bytes += len(data)
                try:
                    async with asyncio.timeout(HELD_UP_S):
                        await writer.drain()
                except TimeoutError:
                    self.is_held_up.set()
                    await writer.drain()
                if left is not None and left <= 0:
                    return True
        except ConnectionError:
            pass
        return False
