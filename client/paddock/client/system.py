"""Asking the gateway about itself."""

from paddock.client import transport
from paddock.contracts.api import base, methods, system


class System:
    def __init__(self, link: transport.Transport) -> None:
        self._link = link

    async def ping(self) -> system.Pong:
        """The least there is to ask."""
        return await self._link.call(methods.SYSTEM_PING, base.Nothing())

    async def info(self) -> system.SystemInfo:
        """Version, clock and methods of the gateway."""
        return await self._link.call(methods.SYSTEM_INFO, base.Nothing())
