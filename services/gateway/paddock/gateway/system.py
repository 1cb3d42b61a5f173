"""`system.*`: the gateway about itself."""

import importlib.metadata

from paddock.bus import clock
from paddock.contracts.api import base, methods, system
from paddock.gateway import jsonrpc

_PONG = system.Pong()


class System:
    def __init__(self, wall: clock.Clock) -> None:
        self._clock = wall
        self._version = importlib.metadata.version("paddock-gateway")

    def routes(self) -> tuple[jsonrpc.AnyRoute, ...]:
        return (
            jsonrpc.Route(methods.SYSTEM_PING, self.ping),
            jsonrpc.Route(methods.SYSTEM_INFO, self.info),
        )

    async def ping(self, _params: base.Nothing, _call: jsonrpc.Call) -> system.Pong:
        return _PONG

    async def info(self, _params: base.Nothing, _call: jsonrpc.Call) -> system.SystemInfo:
        return system.SystemInfo(
            version=self._version, now_ms=self._clock.now_ms(), methods=sorted(methods.BY_NAME)
        )
