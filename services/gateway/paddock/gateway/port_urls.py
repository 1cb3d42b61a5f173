"""`machine.portUrl`: addresses that let whoever has one reach one port until it expires, and how people reach us."""

import dataclasses
from typing import Final
from urllib import parse

from paddock.bus import clock
from paddock.contracts.api import methods, ports
from paddock.gateway import jsonrpc, machine_link, moments, port_address, port_tickets

_ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - to recognise it


@dataclasses.dataclass(slots=True)
class Whereabouts:
    """How people reach this gateway: as a setting says, or where it listens."""

    url: str

    def listening(self, host: str, port: int) -> None:
        """Where we listen is known now."""
        if not self.url:
            shown = "127.0.0.1" if host in _ANY_ADDRESS else f"[{host}]" if ":" in host else host
            self.url = f"http://{shown}:{port}"

    @property
    def scheme(self) -> str:
        return parse.urlsplit(self.url).scheme or "http"

    @property
    def is_behind_proxy(self) -> bool:
        """Whether somebody stands before us: we speak no TLS ourselves."""
        return self.scheme == "https"


class PortUrls:
    def __init__(
        self,
        link: machine_link.MachineLink,
        tickets: port_tickets.Tickets,
        addresses: port_address.Addresses,
        where: Whereabouts,
        wall: clock.Clock,
    ) -> None:
        self._link, self._tickets, self._addresses = link, tickets, addresses
        self._where, self._clock = where, wall

    def routes(self) -> tuple[jsonrpc.AnyRoute, ...]:
        return (jsonrpc.Route(methods.MACHINE_PORT_URL, self.port_url),)

    async def port_url(self, params: ports.MachinePortUrl, call: jsonrpc.Call) -> ports.PortUrl:
        await self._link.check(params.machine_id)
        expires_at_ms = self._clock.now_ms() + int(params.expires_s * 1000)
        ticket = self._tickets.sealed(
            port_tickets.Ticket(params.machine_id, params.port, call.caller.id, expires_at_ms)
        )
        path, mark, fragment = params.path.partition("#")
        written = port_tickets.with_ticket(_ascii(path), ticket) + mark + _ascii(fragment)
        base = parse.urlsplit(self._where.url)
        before = base.path.rstrip("/") + port_address.prefix(params.machine_id, params.port)
        path_url = f"{base.scheme}://{base.netloc}{before}{written}"
        host = self._addresses.host(params.machine_id, params.port)
        netloc = host if base.port is None else f"{host}:{base.port}"
        return ports.PortUrl(
            url=f"{base.scheme}://{netloc}{written}" if host else path_url,
            path_url=path_url,
            expires_at=moments.text(expires_at_ms) or "",
        )


def _ascii(text: str) -> str:
    """`text` with what no address holds escaped; escapes that are there stay."""
    return "".join(one if one.isascii() else parse.quote(one, errors="replace") for one in text)
