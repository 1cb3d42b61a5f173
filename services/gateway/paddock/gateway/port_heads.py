"""The heads of requests and answers on their way between a client and an application.

What belongs to one connection stays on it, what lets a client in is taken out, what tells the application where the request
came from is put in; everything else passes as it is: order, repetitions, spelling and bytes.
"""

from collections.abc import Iterable
from typing import Any, Final

import multidict
from aiohttp import hdrs, web

from paddock.contracts import errors
from paddock.contracts.api import ports
from paddock.gateway import port_address, port_tickets

PREFIX_HEADER: Final = "X-Forwarded-Prefix"
_OF_ONE_CONNECTION: Final = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_ALWAYS_OURS: Final = frozenset(
    {
        ports.TOKEN_HEADER.lower(), "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-prefix",
        "x-forwarded-port", "x-forwarded-server", "forwarded",
    }
)  # fmt: skip
_KEPT_WHATEVER: Final = frozenset({"host", "content-length"})
"""A client may not take these away by naming them in Connection."""
_TOKEN_START: Final = "bearer pdk_"  # noqa: S105 - how one begins

Headers = multidict.CIMultiDict[str]


def is_token(authorization: str) -> bool:
    """Whether this Authorization is for us; any other is the application's."""
    scheme, _, rest = authorization.partition(" ")
    return f"{scheme} {rest.strip()}".lower().startswith(_TOKEN_START)


def is_websocket(request: web.BaseRequest) -> bool:
    """Whether it asks to become a WebSocket."""
    named = _named(request.headers)
    upgrade: str = request.headers.get(hdrs.UPGRADE, "")
    return request.method == hdrs.METH_GET and "upgrade" in named and upgrade.lower() == "websocket"


def of_request(
    request: web.BaseRequest, address: port_address.PortAddress, *, proto: str, is_behind_proxy: bool
) -> Headers:
    """What the application is told.

    Args:
        request: As it came.
        address: What it is for.
        proto: How people reach us.
        is_behind_proxy: The way it came here so far is believed and added to; else it begins with us.

    Raises:
        errors.InvalidRequest: There is text in it that cannot be passed on unchanged.
    """
    gone = (_OF_ONE_CONNECTION | _ALWAYS_OURS | _named(request.headers)) - _KEPT_WHATEVER
    passed = Headers()
    spelled: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        if lower in gone or (lower == "authorization" and is_token(value)):
            continue
        kept = port_tickets.without_tickets(value) if lower == "cookie" else value
        if kept or not value:
            # aiohttp's client takes another spelling of a name for its only value.
            passed.add(spelled.setdefault(lower, name), kept)
    if is_websocket(request):
        passed[hdrs.CONNECTION], passed[hdrs.UPGRADE] = "Upgrade", "websocket"
    if not request.body_exists:
        passed.popall(hdrs.EXPECT, None)
    passed.setdefault(hdrs.HOST, f"localhost:{address.port}")
    _add_way(passed, request, address, proto, is_behind_proxy)
    _check_text([address.target, *passed.keys(), *passed.values()])
    return passed


def of_answer(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """What the client is told; bytes that are no UTF-8 are kept as surrogates."""
    headers = Headers([(_text(name), _text(value)) for name, value in raw])
    gone = _OF_ONE_CONNECTION | {ports.ERROR_HEADER.lower()} | (_named(headers) - _KEPT_WHATEVER)
    return Headers(
        [
            (name, value)
            for name, value in headers.items()
            if name.lower() not in gone and not (name.lower() == "set-cookie" and port_tickets.is_ours(value))
        ]
    )


class Answer(web.StreamResponse):
    """An answer whose head is what it was given: no defaults are added but a date."""

    async def _prepare_headers(self) -> None:
        given = frozenset(name.lower() for name in self.headers)
        await super()._prepare_headers()
        for name in (hdrs.CONTENT_TYPE, hdrs.SERVER):
            if name.lower() not in given:
                self.headers.popall(name, None)

    async def _write_headers(self) -> None:
        request: Any = self._req
        head = f"HTTP/{request.version.major}.{request.version.minor} {self.status} {self.reason}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        if head.isascii() or request.transport is None:
            await super()._write_headers()
        else:
            # aiohttp's writer would leave out what is no UTF-8.
            request.transport.write(f"{head}\r\n".encode(errors="surrogateescape"))


def _add_way(
    headers: Headers,
    request: web.BaseRequest,
    address: port_address.PortAddress,
    proto: str,
    is_behind_proxy: bool,
) -> None:
    came = request.headers if is_behind_proxy else {}
    before: str = came.get("X-Forwarded-For", "")
    remote = request.remote or "unknown"
    headers["X-Forwarded-For"] = f"{before}, {remote}" if before else remote
    headers["X-Forwarded-Proto"] = came.get("X-Forwarded-Proto") or proto
    headers["X-Forwarded-Host"] = came.get("X-Forwarded-Host") or headers[hdrs.HOST]
    if address.prefix:
        headers[PREFIX_HEADER] = address.prefix


def _named(headers: Any) -> frozenset[str]:
    """What Connection says belongs to this connection only."""
    values = headers.getall(hdrs.CONNECTION, ())
    return frozenset(name.strip().lower() for value in values for name in value.split(",") if name.strip())


def _check_text(texts: Iterable[str]) -> None:
    for text in texts:
        if text.isascii():
            continue
        try:
            text.encode()
        except UnicodeEncodeError:
            raise errors.InvalidRequest("cannot pass on a request whose head is no UTF-8") from None


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")
