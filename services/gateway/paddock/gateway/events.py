"""`events.*`: following what happens, on connections that stay."""

from paddock.contracts.api import base, events, methods
from paddock.gateway import jsonrpc


class Events:
    def routes(self) -> tuple[jsonrpc.AnyRoute, ...]:
        return (
            jsonrpc.Route(methods.EVENTS_SUBSCRIBE, self.subscribe),
            jsonrpc.Route(methods.EVENTS_UNSUBSCRIBE, self.unsubscribe),
        )

    async def subscribe(self, params: events.EventsSubscribe, call: jsonrpc.Call) -> events.Subscription:
        return await call.staying().subscriptions.add(params)

    async def unsubscribe(self, params: events.EventsUnsubscribe, call: jsonrpc.Call) -> base.Done:
        call.staying().subscriptions.remove(params.subscription)
        return base.Done()
