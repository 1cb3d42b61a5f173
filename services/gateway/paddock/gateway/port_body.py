"""The body of a request on its way from a client to an application, as it comes and at the pace the application takes it.

An application that wants to see the head first (`Expect: 100-continue`) does: the client is told to go on when the
application says so, or when it has said nothing for a while. While we wait for the client the application is not late.
"""

from collections.abc import Callable
from typing import Final, NoReturn

import aiohttp
from aiohttp import abc, hdrs, http, payload, web

CONTINUE_S: Final = 1.0
"""After so long without a word an application is taken for one that does not know how to say `100 Continue`."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

OnWait = Callable[[bool], None]
"""Told True when the application is waited for, and False when it waits for the client."""


class Body(payload.Payload):
    """Read once, by the HTTP client."""

    def __init__(self, request: web.BaseRequest, on_wait: OnWait) -> None:
        super().__init__(None)
        self._request, self._on_wait = request, on_wait
        expected = request.headers.get(hdrs.EXPECT, "").lower()
        self._awaits_word = expected == "100-continue" and request.version >= http.HttpVersion11
        self.is_answered = False
        """The answer has begun: the client is not told to go on any more."""
        self.is_broken = False
        """What the client sent is no body, or did not come whole."""

    @property
    def is_withheld(self) -> bool:
        """Whether the client was never told to send it."""
        return self._awaits_word

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> NoReturn:
        raise TypeError("a body on its way is never whole")

    async def write(self, writer: abc.AbstractStreamWriter) -> None:
        self._consumed = True
        if self._awaits_word and not self.is_answered:
            self._awaits_word = False
            if self._request.transport is not None:
                self._request.transport.write(_CONTINUE)
        while chunk := await self._chunk(writer):
            await writer.write(chunk)

    async def _chunk(self, writer: abc.AbstractStreamWriter) -> bytes:
        content = self._request.content
        try:
            if chunk := content.read_nowait():
                return chunk
            if not content.at_eof():
                # Whoever sends slowly has sent the head: the application shall see it now.
                writer.send_headers()
                self._on_wait(False)
            return await content.readany()
        except (web.RequestPayloadError, aiohttp.ClientError, OSError):
            self.is_broken = True
            raise
        finally:
            self._on_wait(True)
