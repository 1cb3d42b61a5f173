"""Who may reach a port: whoever shows an access token, or a ticket for just this port.

Decided before anything is looked up, so a stranger learns nothing about which machines there are. A ticket in a cookie is
sent by a browser whoever asks it to: what changes something, and WebSockets, must then come from a page of the same machine.
"""

import dataclasses

from aiohttp import hdrs, web

from paddock.contracts import errors
from paddock.contracts.api import ports
from paddock.gateway import auth, port_address, port_heads, port_tickets

_SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})


@dataclasses.dataclass(frozen=True, slots=True)
class Admission:
    """Let in, by the access token `token_id`. `target` is what is asked, without any ticket.

    `left_s` is how long that holds, None for as long as the token; `ticket` is there when it came in the address.
    """

    target: str
    token_id: str
    left_s: float | None = None
    ticket: str = ""


class Entry:
    def __init__(
        self,
        authenticator: auth.Authenticator,
        tickets: port_tickets.Tickets,
        addresses: port_address.Addresses,
    ) -> None:
        self._authenticator, self._tickets, self._addresses = authenticator, tickets, addresses

    async def admit(self, request: web.BaseRequest, address: port_address.PortAddress) -> Admission:
        """Let a request in, or not.

        Raises:
            errors.Unauthenticated: Why is not told.
            errors.StoreDown: Cannot be said now.
        """
        ticket, target = port_tickets.in_target(address.target)
        authorization = _authorization(request)
        if authorization is not None:
            caller = self._authenticator.known(authorization)
            caller = caller or await self._authenticator.caller(authorization)
            return Admission(target, caller.id)
        if ticket is not None and (good := self._found(ticket, address)):
            return await self._by(good, target, ticket)
        for header in request.headers.getall(hdrs.COOKIE, ()):
            for text in port_tickets.in_cookies(header):
                good = self._found(text, address)
                if good is not None and not self._is_foreign(request, address):
                    return await self._by(good, target)
        raise errors.Unauthenticated

    async def _by(self, ticket: port_tickets.Ticket, target: str, text: str = "") -> Admission:
        caller = await self._authenticator.standing(ticket.token_id)
        return Admission(target, caller.id, self._tickets.left_s(ticket), text)

    def _found(self, text: str, address: port_address.PortAddress) -> port_tickets.Ticket | None:
        return self._tickets.found(text, address.machine_id, address.port)

    def _is_foreign(self, request: web.BaseRequest, address: port_address.PortAddress) -> bool:
        """Whether the page that asks is neither the application's nor another one's of the same machine."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or (request.method in _SAFE_METHODS and not port_heads.is_websocket(request)):
            return False
        host = origin.partition("://")[2].lower()
        if host == request.headers.get(hdrs.HOST, "").lower():
            return False
        named = self._addresses.named(host)
        return named is None or named[1] != address.machine_id


def _authorization(request: web.BaseRequest) -> str | None:
    """What the request shows of an access token, as an Authorization header would."""
    token = request.headers.get(ports.TOKEN_HEADER)
    if token is not None:
        return f"Bearer {token}"
    shown = request.headers.getall(hdrs.AUTHORIZATION, ())
    return next((one for one in shown if port_heads.is_token(one)), None)
