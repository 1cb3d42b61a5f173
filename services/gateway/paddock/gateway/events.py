"""`events.*`: following what happens, on connections that stay."""

from paddock.contracts import errors
from paddock.contracts.api import base, events, methods
from paddock.gateway import jsonrpc, subscriptions


class Events:
    def routes(self) -> tuple[jsonrpc.AnyRoute, ...]:
        return (
            jsonrpc.Route(methods.EVENTS_SUBSCRIBE, self.subscribe),
            jsonrpc.Route(methods.EVENTS_UNSUBSCRIBE, self.unsubscribe),
        )

    async def subscribe(self, params: events.EventsSubscribe, call: jsonrpc.Call) -> events.Subscription:
        return await _of(call).add(params)

    async def unsubscribe(self, params: events.EventsUnsubscribe, call: jsonrpc.Call) -> base.Done:
        _of(call).remove(params.subscription)
        return base.Done()


def _of(call: jsonrpc.Call) -> subscriptions.Subscriptions:
    if call.session is None:
        raise errors.InvalidRequest("cannot follow events here: it needs the connection of GET /ws")
    return call.session
