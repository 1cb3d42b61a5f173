"""Tickets: let whoever has one reach one port of one machine, until it expires or its maker's token ends.

Sealed with the key ring of the store, so every gateway of a fleet knows them and nobody else can make or alter one. In an
address they are a member of the query; a browser gets a cookie for it. Neither ever reaches the application.
"""

import base64
import binascii
from collections.abc import Iterator
from typing import Final

import msgspec

from paddock.bus import clock
from paddock.contracts import errors
from paddock.contracts.api import ports
from paddock.store import secrets

_KIND: Final = "port-ticket-1"
"""Beside tickets the ring seals stored secrets: one must never pass for the other."""
_TEXT_MAX: Final = 512
_PARAMETER: Final = f"{ports.TICKET_PARAMETER}="
_COOKIE: Final = f"{ports.TICKET_COOKIE}="


class Ticket(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What one says. `token_id` is the access token that made it."""

    machine_id: str
    port: int
    token_id: str
    expires_at_ms: int
    kind: str = _KIND


_decode = msgspec.json.Decoder(Ticket).decode


class Tickets:
    def __init__(self, box: secrets.SecretBox, wall: clock.Clock) -> None:
        self._box, self._clock = box, wall

    def sealed(self, ticket: Ticket) -> str:
        """A ticket's text: letters, digits, `-` and `_`."""
        said = msgspec.json.encode(ticket)
        return self._box.seal(said.decode()).decode("ascii").rstrip("=")

    def found(self, text: str, machine_id: str, port: int) -> Ticket | None:
        """What this text says when it is a ticket for this port that has not expired; else None, for whatever reason."""
        ticket = self._opened(text)
        if ticket is None or (ticket.kind, ticket.machine_id, ticket.port) != (_KIND, machine_id, port):
            return None
        return ticket if self.left_s(ticket) else None

    def left_s(self, ticket: Ticket) -> float:
        """For how many seconds more it is good."""
        return max(0.0, (ticket.expires_at_ms - self._clock.now_ms()) / 1000)

    def _opened(self, text: str) -> Ticket | None:
        if len(text) > _TEXT_MAX or not text.isascii():
            return None
        padded = text + "=" * (-len(text) % 4)
        try:
            base64.b64decode(padded, altchars=b"-_", validate=True)
            return _decode(self._box.open(padded.encode()).encode())
        except (binascii.Error, errors.Internal, msgspec.MsgspecError):
            return None


def in_target(target: str) -> tuple[str | None, str]:
    """The ticket in a raw path with query, and the rest of it as it was; the last when there are several."""
    path, mark, query = target.partition("?")
    if _PARAMETER not in query:
        return None, target
    members = query.split("&")
    found = [member for member in members if member.startswith(_PARAMETER)]
    if not found:
        return None, target
    rest = "&".join(member for member in members if not member.startswith(_PARAMETER))
    return found[-1].removeprefix(_PARAMETER), f"{path}{mark}{rest}" if rest else path


def with_ticket(target: str, ticket: str) -> str:
    """A path with its query, and the ticket as the query's last member."""
    path, _, query = target.partition("?")
    return f"{path}?{query}&{_PARAMETER}{ticket}" if query else f"{path}?{_PARAMETER}{ticket}"


def in_cookies(header: str) -> Iterator[str]:
    """Every ticket in a Cookie header: a browser may have one for the host and one for a path."""
    return (one.removeprefix(_COOKIE) for one in _pairs(header) if one.startswith(_COOKIE))


def without_tickets(header: str) -> str:
    """A Cookie header without tickets, and otherwise as it came."""
    if ports.TICKET_COOKIE not in header:
        return header
    return "; ".join(one for one in _pairs(header) if one.partition("=")[0].strip() != ports.TICKET_COOKIE)


def is_ours(set_cookie: str) -> bool:
    """Whether a Set-Cookie header names our cookie, which is not for applications to set."""
    return set_cookie.partition("=")[0].strip() == ports.TICKET_COOKIE


def set_cookie(ticket: str, *, path: str, left_s: float, is_secure: bool) -> str:
    """The Set-Cookie header for a ticket that is good for so long; for this host only."""
    ending = "; Secure" if is_secure else ""
    return f"{_COOKIE}{ticket}; Path={path}; Max-Age={int(left_s)}; HttpOnly; SameSite=Lax{ending}"


def _pairs(header: str) -> Iterator[str]:
    return (one.strip() for one in header.split(";") if one.strip())
