"""Events as they happen, over `GET /ws`.

`async for received in feed` goes on over cut links, restarted gateways and refusals that pass: it subscribes again
with the cursor of the last event it gave, so nothing is missed and nothing comes twice. It ends with a fault when
the gateway refuses for good, or when it could not be reached for `patience_s`.
"""

import asyncio
import contextlib
import dataclasses
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any, Self

import aiohttp
import pydantic

from paddock.client import transport
from paddock.contracts import errors, events
from paddock.contracts.api import events as api
from paddock.contracts.api import methods

PATIENCE_S = 300.0
FIRST_PATIENCE_S = 2.0
"""For the first subscription: who asks a gateway that is not there wants to know."""
ANSWER_S = 10.0
DELAY_S, DELAY_MAX_S = 0.1, 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Received:
    """One event, and the cursor to go on after it."""

    event: events.Event
    cursor: str


class _Message(pydantic.BaseModel):
    """A response or a notification."""

    id: int | str | None = None
    method: str = ""
    params: dict[str, Any] = pydantic.Field(default_factory=dict)


class EventFeed:
    """One subscription. Close it, or use it as `async with`; one reader at a time."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[aiohttp.ClientWebSocketResponse]],
        asked: api.EventsSubscribe,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._connect = connect
        self._asked = asked
        self._patience_s = patience_s
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._subscription = ""

    @property
    def cursor(self) -> str | None:
        """After the last event given; what to subscribe with to go on from here."""
        return self._asked.cursor

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def open(self) -> str:
        """Subscribe now; what happens from here on is not missed. Returns the cursor it begins at.

        Raises:
            errors.GatewayUnreachable: Nothing answers there.
            errors.CursorExpired: The events after the cursor are no longer kept.
        """
        if self._socket is None:
            await self._subscribe_patiently(FIRST_PATIENCE_S)
        return self._asked.cursor or ""

    async def aclose(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received:
        """The next event. Cancellation: safe; the event is then given by the next call."""
        await self.open()
        while True:
            try:
                return await self._next_on_link()
            except errors.Fault as fault:
                if not fault.retryable:
                    raise
            await self.aclose()
            await self._subscribe_patiently(self._patience_s)

    async def _next_on_link(self) -> Received:
        socket = self._open_socket()
        while True:
            message = _read(await socket.receive())
            match message.method:
                case api.EVENT_NOTIFICATION:
                    received = _event(message)
                    if received.subscription == self._subscription:
                        return self._given(received)
                case api.ENDED_NOTIFICATION:
                    ended = _ended(message)
                    raise errors.from_wire(ended.code, ended.message, ended.data)
                case _:
                    pass  # what a newer gateway says besides

    def _given(self, received: api.EventNotification) -> Received:
        # The contract's decoder takes bytes, as they come from the bus.
        event = events.decode(json.dumps(received.event).encode())
        self._asked = self._asked.model_copy(update={"cursor": received.cursor})
        return Received(event, received.cursor)

    async def _subscribe_patiently(self, patience_s: float) -> None:
        clock = asyncio.get_running_loop()
        give_up_at, delay_s = clock.time() + patience_s, DELAY_S
        while True:
            try:
                return await self._subscribe()
            except errors.Fault as fault:
                if not fault.retryable or clock.time() + delay_s > give_up_at:
                    raise
            await asyncio.sleep(delay_s * random.uniform(1.0, 1.5))  # noqa: S311 - jitter
            delay_s = min(delay_s * 2, DELAY_MAX_S)

    async def _subscribe(self) -> None:
        async with contextlib.AsyncExitStack() as unless_subscribed:
            socket = await self._connect()
            unless_subscribed.push_async_callback(socket.close)
            try:
                async with asyncio.timeout(ANSWER_S):
                    await socket.send_str(transport.request(methods.EVENTS_SUBSCRIBE, self._asked))
                    reply = await _first_reply(socket)
            except (TimeoutError, ConnectionError) as error:
                raise errors.NoAnswer("cannot follow events: the gateway did not answer") from error
            subscribed = transport.result(methods.EVENTS_SUBSCRIBE, reply)
            unless_subscribed.pop_all()
        self._socket, self._subscription = socket, subscribed.subscription
        self._asked = self._asked.model_copy(update={"cursor": subscribed.cursor})

    def _open_socket(self) -> aiohttp.ClientWebSocketResponse:
        if self._socket is None:
            raise errors.NoAnswer("cannot follow events: the link was cut")
        return self._socket


def _text(message: aiohttp.WSMessage) -> str:
    if message.type is aiohttp.WSMsgType.TEXT:
        return str(message.data)
    raise errors.NoAnswer("cannot follow events: the link was cut")


def _read(message: aiohttp.WSMessage) -> _Message:
    text = _text(message)
    try:
        return _Message.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise errors.BadAnswer("cannot read what the gateway says about events") from error


async def _first_reply(socket: aiohttp.ClientWebSocketResponse) -> transport.Reply:
    """The answer to the only request of this link; the gateway sends no event before it."""
    while True:
        text = _text(await socket.receive())
        try:
            if _Message.model_validate_json(text).method:
                continue
            return transport.Reply.model_validate_json(text)
        except pydantic.ValidationError as error:
            raise errors.BadAnswer("cannot read what the gateway says about events") from error


def _event(message: _Message) -> api.EventNotification:
    try:
        return api.EventNotification.model_validate(message.params)
    except pydantic.ValidationError as error:
        raise errors.BadAnswer("cannot read an event of the gateway") from error


def _ended(message: _Message) -> api.EndedNotification:
    try:
        return api.EndedNotification.model_validate(message.params)
    except pydantic.ValidationError as error:
        raise errors.BadAnswer("cannot read why the gateway ended the events") from error
