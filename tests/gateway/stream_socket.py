"""A client of `/ws` that uses streams: calls, frames and notifications, filed by stream as they come."""

import asyncio
import collections
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import msgspec

from paddock.contracts.api import streams
from tests.gateway import door

WAIT_S = 20.0
DATA, STDERR, EOF = streams.FrameKind.DATA, streams.FrameKind.STDERR, streams.FrameKind.EOF


class StreamSocket:
    """One connection. It reads only while a test waits for something."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.responses: dict[Any, dict[str, Any]] = {}
        self.refusals: list[dict[str, Any]] = []
        self.taken: dict[int, list[int]] = collections.defaultdict(list)
        self.ended: dict[int, dict[str, Any]] = {}
        self.after_end = 0
        self._content: dict[tuple[int, int], bytearray] = collections.defaultdict(bytearray)
        self._from: dict[tuple[int, int], int] = {}
        self._eofs: set[int] = set()
        self._ids = itertools.count(1)

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The whole response to one call."""
        request_id = await self.begin(method, **params)
        await self.until(lambda: request_id in self.responses)
        return self.responses.pop(request_id)

    async def begin(self, method: str, **params: Any) -> int:
        """Ask without waiting; its id."""
        request_id = next(self._ids)
        await self.ws.send_json({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        return request_id

    async def call(self, method: str, **params: Any) -> Any:
        response = await self.ask(method, **params)
        assert "error" not in response, response
        return response["result"]

    async def refused(self, method: str, **params: Any) -> dict[str, Any]:
        response = await self.ask(method, **params)
        assert "error" in response, response
        error: dict[str, Any] = response["error"]
        return error

    async def send(self, stream: int, offset: int, data: bytes = b"", kind: streams.FrameKind = DATA) -> None:
        await self.ws.send_bytes(streams.frame(kind, stream, offset, data))

    async def send_all(self, stream: int, content: bytes, begin: int = 0) -> None:
        """Send `content` from `begin` on, within the window, and then EOF."""
        taken = begin
        for offset in range(begin, len(content), streams.FRAME_BYTES_MAX):
            piece = content[offset : offset + streams.FRAME_BYTES_MAX]
            while offset + len(piece) - taken > streams.WINDOW_BYTES:
                count = len(self.taken[stream])
                await self.until(lambda: len(self.taken[stream]) > count or stream in self.ended)  # noqa: B023
                if stream in self.ended:
                    return
                taken = self.taken[stream][-1]
            await self.send(stream, offset, piece)
        await self.send(stream, len(content), kind=EOF)

    async def end(self, stream: int) -> dict[str, Any]:
        """How the stream ended: its result."""
        await self.until(lambda: stream in self.ended)
        ended = self.ended[stream]
        assert ended.get("error") is None, ended
        result: dict[str, Any] = ended["result"]
        return result

    async def fault(self, stream: int) -> dict[str, Any]:
        """Why the stream could not go on."""
        await self.until(lambda: stream in self.ended)
        fault: dict[str, Any] = self.ended[stream]["error"]
        return fault

    def content(self, stream: int, kind: streams.FrameKind = DATA) -> bytes:
        """What came on it so far."""
        return bytes(self._content[stream, kind])

    def size(self, stream: int, kind: streams.FrameKind = DATA) -> int:
        return len(self._content[stream, kind])

    def has_eof(self, stream: int) -> bool:
        return stream in self._eofs

    async def until(self, is_so: Callable[[], bool], within_s: float = WAIT_S) -> None:
        """Read until it is so."""
        async with asyncio.timeout(within_s):
            while not is_so():
                self._file(await self.ws.receive())

    async def closed(self) -> int | None:
        """Read until the connection is closed; its code."""
        async with asyncio.timeout(WAIT_S):
            while not self.ws.closed:
                message = await self.ws.receive()
                if message.type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}:
                    self._file(message)
        return self.ws.close_code

    def _file(self, message: aiohttp.WSMessage) -> None:
        if message.type == aiohttp.WSMsgType.BINARY:
            self._file_frame(message.data)
            return
        assert message.type == aiohttp.WSMsgType.TEXT, message
        said = msgspec.json.decode(message.data)
        params = said.get("params", {})
        if said.get("method") == streams.TAKEN_NOTIFICATION:
            self.taken[params["stream"]].append(params["offset"])
        elif said.get("method") == streams.ENDED_NOTIFICATION:
            assert params["stream"] not in self.ended, "the end is said once"
            self.ended[params["stream"]] = params
        elif said.get("id") is None:
            self.refusals.append(said["error"])
        else:
            self.responses[said["id"]] = said

    def _file_frame(self, message: bytes) -> None:
        kind, stream, offset, payload = streams.split_frame(message)
        self.after_end += stream in self.ended
        if kind is EOF:
            self._eofs.add(stream)
            return
        content = self._content[stream, kind]
        begin = self._from.setdefault((stream, kind), offset)
        assert offset == begin + len(content), "offsets have no gaps and no repetitions"
        content += payload


@contextlib.asynccontextmanager
async def opened(gateway: door.Door, **options: Any) -> AsyncIterator[StreamSocket]:
    options = {"max_msg_size": 8 << 20, **options}
    async with gateway.http.ws_connect(f"{gateway.url}/ws", headers=gateway.headers, **options) as ws:
        yield StreamSocket(ws)
