"""HTTP and WebSocket requests to ports inside machines: let in, sent on, and the answer streamed back.

An answer of ours (not let in, nothing listens, machine away, no answer) is JSON and carries `X-Paddock-Error`, which no
application can set. An answer that breaks off in the middle breaks off for the client, too, and never looks whole.
"""

import asyncio
from typing import Final

import aiohttp
import msgspec
from aiohttp import hdrs, web

from paddock.bus import logs, outcomes
from paddock.contracts import errors
from paddock.contracts.api import ports
from paddock.gateway import (
    machine_link,
    port_address,
    port_apps,
    port_body,
    port_entry,
    port_heads,
    port_lasting,
    port_tickets,
    port_upgrade,
    port_urls,
)

log = logs.get(__name__)

REQUEST_ID_HEADER: Final = "X-Request-Id"
_EVENT_STREAM: Final = "text/event-stream"
_METHOD: Final = "port.http"
_SWITCHING, _SEE_OTHER, _PERMANENT, _INTERNAL = 101, 303, 308, 500
_STATUS: Final[dict[type[errors.Fault], int]] = {
    errors.InvalidRequest: 400,
    errors.InvalidParams: 400,
    errors.Unauthenticated: 401,
    errors.NotFound: 404,
    errors.WrongPhase: 409,
    errors.MachineGone: 410,
    errors.PortRefused: 502,
    errors.BadAnswer: 502,
    errors.ChannelBroken: 502,
    errors.MachineOffline: 503,
    errors.MachineNotReady: 503,
    errors.TooManyInFlight: 503,
    errors.ShuttingDown: 503,
    errors.StoreDown: 503,
    errors.BusDown: 503,
    errors.NoAnswer: 504,
    errors.DeadlineExceeded: 504,
}


class PortProxy:
    """Answers what is asked of ports, while `run` does."""

    def __init__(
        self,
        entry: port_entry.Entry,
        addresses: port_address.Addresses,
        link: machine_link.MachineLink,
        apps: port_apps.Apps,
        lasting: port_lasting.Lasting,
        where: port_urls.Whereabouts,
    ) -> None:
        self._entry, self._addresses, self._link, self._apps = entry, addresses, link, apps
        self._lasting, self._where = lasting, where
        self._is_over = asyncio.Event()

    async def run(self, _stop: asyncio.Event) -> None:
        """Be able to ask applications, until `end`: a loop that outlives the HTTP server's."""
        async with self._lasting.running(), self._apps.running():
            await self._is_over.wait()

    def end(self) -> None:
        """Nobody asks any more."""
        self._is_over.set()

    async def drain(self, drain_s: float) -> None:
        """Take no more, end what has no end of its own, and wait for the rest at most so many seconds."""
        await self._lasting.drain(drain_s)

    async def answer(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse | None:
        """The answer to a request for a port; None when it is for the gateway itself."""
        try:
            address = self._addresses.of(request.headers.get(hdrs.HOST, ""), request.raw_path)
        except errors.Fault as fault:
            return _refusal(request, fault, request_id)
        if address is None:
            return None
        if address.lacks_slash:
            return _moved(f"{address.prefix}{address.target}", _PERMANENT)
        if self._lasting.is_stopping:
            return _refusal(request, errors.ShuttingDown(), request_id)
        logs.bind(request_id=request_id)
        admitted = await outcomes.settled(
            self._entry.admit(request, address), method=_METHOD, request_id=request_id
        )
        if isinstance(admitted, errors.Fault):
            return _refusal(request, admitted, request_id)
        if admitted.ticket and _is_navigation(request):
            return self._with_cookie(address, admitted)
        with self._lasting.under_way(request, admitted.token_id, admitted.left_s) as exchange:
            return await self._exchanged(exchange, address, admitted.target, request_id)

    async def _exchanged(
        self,
        exchange: port_lasting.Exchange,
        address: port_address.PortAddress,
        target: str,
        request_id: str,
    ) -> web.StreamResponse:
        begun = await outcomes.settled(
            self._begin(exchange.request, address, target), method=_METHOD, request_id=request_id
        )
        if isinstance(begun, errors.Fault):
            return _refusal(exchange.request, begun, request_id)
        upstream, body = begun
        try:
            return await self._pass_on(exchange, upstream, body)
        finally:
            upstream.close()

    async def _begin(
        self, request: web.BaseRequest, address: port_address.PortAddress, target: str
    ) -> tuple[aiohttp.ClientResponse, port_body.Body | None]:
        # A connection that is still open says nothing about whether the machine may be asked.
        await self._link.check(address.machine_id)
        headers = port_heads.of_request(
            request, address, proto=self._where.scheme, is_behind_proxy=self._where.is_behind_proxy
        )
        return await self._apps.ask(request, address, target, headers)

    async def _pass_on(
        self,
        exchange: port_lasting.Exchange,
        upstream: aiohttp.ClientResponse,
        body: port_body.Body | None,
    ) -> web.StreamResponse:
        request, is_upgrade = exchange.request, upstream.status == _SWITCHING
        headers = port_heads.of_answer(upstream.raw_headers)
        if is_upgrade:
            headers[hdrs.CONNECTION], headers[hdrs.UPGRADE] = "Upgrade", "websocket"
        answer = port_heads.Answer(status=upstream.status, reason=upstream.reason, headers=headers)
        if body is not None:
            body.is_answered = True
            if body.is_withheld:
                answer.force_close()  # else the next request might be taken for this body
        if is_upgrade or upstream.content_type == _EVENT_STREAM:
            self._lasting.began(exchange)
        try:
            if is_upgrade:
                await port_upgrade.relay(request, upstream, answer)
            else:
                await _copy(request, upstream, answer)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            log.debug("port_answer_cut", reason=str(error))
            exchange.cut()
        return answer

    def _with_cookie(
        self, address: port_address.PortAddress, admitted: port_entry.Admission
    ) -> web.StreamResponse:
        """Show a browser the address without its ticket, which it keeps as a cookie."""
        answer = _moved(_same_host(f"{address.prefix}{admitted.target}"), _SEE_OTHER)
        answer.headers[hdrs.SET_COOKIE] = port_tickets.set_cookie(
            admitted.ticket,
            path=f"{address.prefix}/",
            left_s=admitted.left_s or 0.0,
            is_secure=self._where.scheme == "https",
        )
        return answer


async def _copy(
    request: web.BaseRequest, upstream: aiohttp.ClientResponse, answer: web.StreamResponse
) -> None:
    await answer.prepare(request)
    while data := await upstream.content.readany():
        await answer.write(data)
    await answer.write_eof()


def _is_navigation(request: web.BaseRequest) -> bool:
    """Whether a browser goes there; what a program asks for is answered at once."""
    accepted = request.headers.get(hdrs.ACCEPT, "")
    return (
        request.method == hdrs.METH_GET and "text/html" in accepted and not port_heads.is_websocket(request)
    )


def _same_host(target: str) -> str:
    """`target` so that no browser takes its beginning for a host."""
    return f"/.{target}" if target[1:2] in {"/", "\\"} else target


def _moved(location: str, status: int) -> web.Response:
    return web.Response(
        status=status,
        headers={hdrs.LOCATION: location, hdrs.CACHE_CONTROL: "no-store", "Referrer-Policy": "no-referrer"},
    )


def _refusal(request: web.BaseRequest, fault: errors.Fault, request_id: str) -> web.Response:
    told = {
        "code": fault.code,
        "kind": fault.kind,
        "message": fault.message,
        "retryable": fault.retryable,
        "data": fault.data,
    }
    answer = web.Response(
        status=_STATUS.get(type(fault), _INTERNAL),
        body=msgspec.json.encode({"error": told}),
        content_type="application/json",
        headers={
            ports.ERROR_HEADER: fault.kind,
            hdrs.CACHE_CONTROL: "no-store",
            REQUEST_ID_HEADER: request_id,
        },
    )
    if isinstance(fault, errors.Unauthenticated):
        answer.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if request.body_exists and not request.content.at_eof():
        answer.force_close()  # nobody reads what else the client would send
    return answer
