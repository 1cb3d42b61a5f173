"""The HTTP surface: `POST /rpc`, `GET /ws`, `GET /healthz`, `GET /readyz`, and whatever is for a port of a machine.

Every answer of `/rpc` is JSON-RPC, also when the request was refused before it was read. The status is 200 but for what
concerns the whole request: 401 without a valid token, 413 when it is too large, 503 while stopping or when nothing can be
looked up, 204 when only notifications came. Each answer carries `X-Request-Id`, which finds its lines in our log.
"""

import asyncio
import itertools
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import abc, hdrs, streams, web

from paddock.bus import logs, outcomes
from paddock.contracts import errors
from paddock.gateway import auth, jsonrpc, port_address, port_proxy, readiness, websocket

BODY_BYTES_MAX: Final = 2 * 1024 * 1024
"""Of one body or WebSocket message: the largest file in one call, escaped, with room to spare."""
REQUEST_ID_HEADER: Final = "X-Request-Id"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_STATUS: Final = {
    errors.Unauthenticated: 401,
    errors.PayloadTooLarge: 413,
    errors.ShuttingDown: 503,
    errors.StoreDown: 503,
}
"""Where a fault is the whole answer; any other is an answer like any other."""
_OK, _NO_CONTENT, _NOT_FOUND, _NOT_ALLOWED, _UNAVAILABLE = 200, 204, 404, 405, 503
_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Surface:
    """The routes of one gateway."""

    def __init__(
        self,
        dispatcher: jsonrpc.Dispatcher,
        authenticator: auth.Authenticator,
        sockets: websocket.Sockets,
        ready: readiness.Readiness,
        ports: port_proxy.PortProxy,
    ) -> None:
        self._dispatcher, self._authenticator = dispatcher, authenticator
        self._sockets, self._ready, self._ports = sockets, ready, ports
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._paths: dict[str, tuple[str, _Handler | None]] = {
            "/rpc": ("POST", self.rpc),
            "/ws": ("GET", self.ws),
            "/healthz": ("GET", self.healthz),
            "/readyz": ("GET", self.readyz),
        }

    def server(self) -> web.Server:
        """The aiohttp server. No router and no middleware: they would cost a fifth of a small call."""
        # A caller that hangs up ends its waiting; what it asked for goes on where it was accepted.
        return web.Server(
            self._handle,
            request_factory=_request,
            access_log=None,
            handler_cancellation=True,
            auto_decompress=False,
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        method, handler = self._paths.get(request.path, ("", None))
        if handler is None or port_address.MARK in request.headers.get(hdrs.HOST, ""):
            answer = await self._ports.answer(request, self._request_id(request))
            if answer is not None:
                return answer
        if handler is None:
            return web.Response(status=_NOT_FOUND, text="not found\n")
        if request.method != method:
            return web.Response(status=_NOT_ALLOWED, text=f"use {method}\n", headers={"Allow": method})
        return await handler(request)

    async def rpc(self, request: web.BaseRequest) -> web.StreamResponse:
        """Carry out what the body asks."""
        request_id = self._request_id(request)
        logs.bind(request_id=request_id)  # aiohttp runs each request in a context of its own
        caller = await self._caller(request, request_id)
        if isinstance(caller, errors.Fault):
            return _refused(caller, request_id)
        try:
            body = await _body(request)
        except errors.Fault as fault:
            return _refused(fault, request_id)
        answer = await self._dispatcher.answer(body, jsonrpc.Call(caller, request_id))
        status = _OK if answer.fault is None else _STATUS.get(type(answer.fault), _OK)
        if answer.body is None:
            status = _NO_CONTENT
        return _response(answer.body, status, request_id)

    async def ws(self, request: web.BaseRequest) -> web.StreamResponse:
        """The same over a connection that stays, and subscriptions."""
        request_id = self._request_id(request)
        caller = await self._caller(request, request_id)
        if isinstance(caller, errors.Fault):
            return _refused(caller, request_id)
        return await self._sockets.serve(request, caller, request_id)

    async def healthz(self, _request: web.BaseRequest) -> web.StreamResponse:
        """The process runs and answers; nothing else is looked at."""
        return web.Response(body=b'{"status":"ok"}', content_type="application/json")

    async def readyz(self, _request: web.BaseRequest) -> web.StreamResponse:
        """200 when calls can be carried out; 503 and what is missing when not."""
        missing = await self._ready.missing()
        body = msgspec.json.encode({"ready": not missing, "missing": missing})
        status = _UNAVAILABLE if missing else _OK
        return web.Response(body=body, status=status, content_type="application/json")

    async def _caller(self, request: web.BaseRequest, request_id: str) -> auth.Caller | errors.Fault:
        header = request.headers.get("Authorization")
        known = self._authenticator.known(header)
        if known is not None:
            return known
        return await outcomes.settled(
            self._authenticator.caller(header), method="authenticate", request_id=request_id
        )

    def _request_id(self, request: web.BaseRequest) -> str:
        given = request.headers.get(REQUEST_ID_HEADER)
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        return f"{self._prefix}-{next(self._numbers)}"


def _request(
    message: Any,
    payload: streams.StreamReader,
    protocol: Any,
    writer: abc.AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=BODY_BYTES_MAX)


async def _body(request: web.BaseRequest) -> bytes:
    """The body.

    Raises:
        errors.PayloadTooLarge: It is larger than the limit, by its own account or in fact.
        errors.ParseError: It is not encoded as it says.
    """
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise _too_large()
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise _too_large() from None
    except web.HTTPException:
        raise errors.ParseError from None


def _too_large() -> errors.Fault:
    return errors.PayloadTooLarge(
        f"cannot read a body of more than {BODY_BYTES_MAX} bytes", data={"limitBytes": BODY_BYTES_MAX}
    )


def _refused(fault: errors.Fault, request_id: str) -> web.Response:
    response = _response(jsonrpc.error_body(fault), _STATUS.get(type(fault), _OK), request_id)
    if isinstance(fault, errors.Unauthenticated):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _response(body: bytes | None, status: int, request_id: str) -> web.Response:
    headers = {REQUEST_ID_HEADER: request_id}
    if body is not None:
        headers["Content-Type"] = "application/json"
    return web.Response(body=body, status=status, headers=headers)
