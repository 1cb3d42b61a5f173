"""`stream.*`: ending a stream of the connection it is asked on."""

from paddock.contracts.api import base, methods, streams
from paddock.gateway import jsonrpc


class StreamCalls:
    def routes(self) -> tuple[jsonrpc.AnyRoute, ...]:
        return (jsonrpc.Route(methods.STREAM_CLOSE, self.close),)

    async def close(self, params: streams.StreamClose, call: jsonrpc.Call) -> base.Done:
        await call.staying().streams.close(params.stream)
        return base.Done()
