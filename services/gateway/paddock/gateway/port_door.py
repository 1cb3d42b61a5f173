"""All that reaches ports over HTTP, put together for one gateway."""

import dataclasses
from typing import Self

from paddock.gateway import (
    auth,
    machine_link,
    port_address,
    port_apps,
    port_entry,
    port_lasting,
    port_proxy,
    port_tickets,
    port_urls,
    settings,
    tunnels,
)
from paddock.store import process


@dataclasses.dataclass(frozen=True, slots=True)
class PortDoor:
    """The proxy, `machine.portUrl`, and where both say people find us."""

    proxy: port_proxy.PortProxy
    urls: port_urls.PortUrls
    where: port_urls.Whereabouts

    @classmethod
    def of(
        cls,
        context: process.Context,
        given: settings.Settings,
        authenticator: auth.Authenticator,
        link: machine_link.MachineLink,
    ) -> Self:
        where = port_urls.Whereabouts(given.gateway_public_url)
        addresses = port_address.Addresses(given.gateway_ports_domain)
        tickets = port_tickets.Tickets(context.store.secrets, context.clock)
        proxy = port_proxy.PortProxy(
            port_entry.Entry(authenticator, tickets, addresses),
            addresses,
            link,
            port_apps.Apps(tunnels.Tunnels(link), head_s=given.gateway_ports_head_s),
            port_lasting.Lasting(authenticator),
            where,
        )
        return cls(proxy, port_urls.PortUrls(link, tickets, addresses, where, context.clock), where)
