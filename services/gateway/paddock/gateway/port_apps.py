"""Asking applications in machines over HTTP: a request goes out as it came, and the head of the answer comes back.

Connections are kept for a few seconds, for requests without a body that may be repeated. One that turns out to be stale is
replaced and the request repeated; any other request has a connection of its own, so it is never sent twice. Nothing is
decompressed, no redirect followed, no cookie kept.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import yarl
from aiohttp import hdrs, web

from paddock.contracts import errors
from paddock.gateway import port_address, port_body, port_heads, tunnels

HEAD_BYTES_MAX: Final = 64 * 1024
"""Of one line of an answer's head, and all of its fields are at most `FIELDS_MAX`."""
FIELDS_MAX: Final = 512
_REPEATABLE: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS, hdrs.METH_DELETE})
_NO_DEFAULTS: Final = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE, hdrs.USER_AGENT)


class _CutOffError(Exception):
    """The connection ended before the answer. No error of aiohttp's, which would repeat by its own rules."""


@dataclasses.dataclass(slots=True)
class _Attempt:
    is_on_kept_connection: bool = False


class _Request(aiohttp.ClientRequest):
    def update_expect_continue(self, expect: bool = False) -> None:
        super().update_expect_continue(expect)
        if self._continue is not None:
            self.loop.call_later(port_body.CONTINUE_S, _go_on, self._continue)


class _Patience:
    """How long an application may still take to begin its answer."""

    def __init__(self, limit: asyncio.Timeout, head_s: float) -> None:
        self._limit, self._head_s = limit, head_s
        self.is_over = False

    def waits(self, is_for_application: bool) -> None:
        """Count from now, or do not count."""
        if not self.is_over:
            now = asyncio.get_running_loop().time()
            self._limit.reschedule(now + self._head_s if is_for_application else None)


class Apps:
    """All applications; they can be asked inside `running`."""

    def __init__(self, tunnels_: tunnels.Tunnels, *, head_s: float) -> None:
        self._tunnels, self._head_s = tunnels_, head_s
        self._kept: aiohttp.ClientSession | None = None
        self._single: aiohttp.ClientSession | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with (
            self._tunnels.running(),
            _session(tunnels.Connector(self._tunnels, is_pooled=True)) as self._kept,
            _session(tunnels.Connector(self._tunnels, is_pooled=False)) as self._single,
        ):
            yield

    async def ask(
        self,
        request: web.BaseRequest,
        address: port_address.PortAddress,
        target: str,
        headers: port_heads.Headers,
    ) -> tuple[aiohttp.ClientResponse, port_body.Body | None]:
        """Send a request on, and wait for the head of the answer; the caller closes the answer.

        Raises:
            errors.PortRefused: Nothing listens there.
            errors.MachineOffline: The machine is not connected.
            errors.NoAnswer: The application was silent for too long.
            errors.BadAnswer: It ended the connection, or its answer is no HTTP.
            errors.InvalidRequest: The client's body is none.

        Cancellation: safe; the application sees its connection end.
        """
        where = f"port {address.port} of machine {address.machine_id}"
        body: port_body.Body | None = None
        try:
            async with asyncio.timeout(None) as limit:
                patience = _Patience(limit, self._head_s)
                patience.waits(True)
                if request.body_exists:
                    body = port_body.Body(request, patience.waits)
                try:
                    return await self._send(request.method, _url(address, target), headers, body), body
                finally:
                    patience.is_over = True
        except TimeoutError:
            raise errors.NoAnswer(
                f"cannot get an answer from {where}: it was silent for {self._head_s:g} s"
            ) from None
        except (_CutOffError, aiohttp.ClientError, ValueError) as error:
            if body is not None and body.is_broken:
                raise errors.InvalidRequest("cannot pass on the body: it did not come whole") from error
            raise errors.BadAnswer(
                f"cannot read an answer from {where}: {_what_went_wrong(error)}", detail=str(error)
            ) from error

    async def _send(
        self, method: str, url: yarl.URL, headers: port_heads.Headers, body: port_body.Body | None
    ) -> aiohttp.ClientResponse:
        if self._kept is None or self._single is None:
            raise errors.ShuttingDown
        if body is None and method in _REPEATABLE and hdrs.UPGRADE not in headers:
            attempt = _Attempt()
            try:
                return await self._kept.request(
                    method, url, headers=headers, allow_redirects=False, trace_request_ctx=attempt
                )
            except _CutOffError:
                if not attempt.is_on_kept_connection:
                    raise
        return await self._single.request(method, url, headers=headers, data=body, allow_redirects=False)


def _session(connector: tunnels.Connector) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=_NO_DEFAULTS,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        request_class=_Request,
        middlewares=(_once,),
        trace_configs=[trace],
        max_line_size=HEAD_BYTES_MAX,
        max_field_size=HEAD_BYTES_MAX,
        max_headers=FIELDS_MAX,
    )


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
        raise _CutOffError(str(error)) from error


async def _note_reuse(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _params: aiohttp.TraceConnectionReuseconnParams,
) -> None:
    attempt: Any = context.trace_request_ctx
    if isinstance(attempt, _Attempt):
        attempt.is_on_kept_connection = True


def _url(address: port_address.PortAddress, target: str) -> yarl.URL:
    # Said to be encoded, and all of it the path: so no byte of it is changed.
    return yarl.URL.build(
        scheme="http", host=address.machine_id, port=address.port, path=target, encoded=True
    )


def _go_on(word: "asyncio.Future[bool]") -> None:
    if not word.done():
        word.set_result(True)


def _what_went_wrong(error: Exception) -> str:
    if isinstance(error, _CutOffError):
        return "the application closed the connection before it answered"
    return "what it sent is not HTTP"
