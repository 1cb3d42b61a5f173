"""A small gateway in memory that speaks the contract over real HTTP and WebSockets.

What it is asked is read by the contract's models and what it answers is written by them, so client and contract
cannot drift apart unseen. Faults and cut links are ordered beforehand; its fleet moves when a test moves it.
"""

import asyncio
import collections
import dataclasses
import json
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from paddock.contracts import errors, events
from paddock.contracts.api import base, methods
from paddock.contracts.api import events as api_events
from tests.support import fake_fleet

TOKEN = "pdk_test_" + "a" * 43
CUT_BEFORE, CUT_AFTER, HANG = "cut before it is done", "cut after it is done", "never answer"
EPOCH = "e1"


@dataclasses.dataclass(eq=False)
class _Link:
    """One WebSocket; `news` is set when it has something to look at."""

    request: web.Request
    news: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    is_cut: bool = False


class FakeGateway:
    """One gateway. Used inside `async with`; stopped and started again it keeps address and fleet.

    `troubles[method]` are what its next calls meet, one each: a fault, `CUT_BEFORE`, `CUT_AFTER` or `HANG`. "ws" is a new
    WebSocket, "events" an open one.
    """

    def __init__(self) -> None:
        self.token = TOKEN
        self.fleet = fake_fleet.FakeFleet(self._on_event)
        self.asked: list[tuple[str, Any]] = []
        self.troubles: dict[str, collections.deque[errors.Fault | str]] = collections.defaultdict(
            collections.deque
        )
        self.first_kept = 1
        self.subscribed: list[api_events.EventsSubscribe] = []
        self.unsent: set[int] = set()
        self.has_subscriber = asyncio.Event()
        self._subscribers_changed = asyncio.Condition()
        self._links: set[_Link] = set()
        self._port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def names_asked(self) -> list[str]:
        return [name for name, _ in self.asked]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application()
        app.add_routes([web.post("/rpc", self._rpc), web.get("/ws", self._ws)])
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.cut_links()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def cut_links(self) -> None:
        """End every WebSocket as a network does: without a word."""
        self.has_subscriber.clear()
        for link in self._links:
            link.is_cut = True
            link.news.set()
            if link.request.transport is not None:
                link.request.transport.abort()

    async def subscribers(self, count: int) -> None:
        """Wait until so many subscriptions were made since the start."""
        async with asyncio.timeout(15), self._subscribers_changed:
            await self._subscribers_changed.wait_for(lambda: len(self.subscribed) >= count)

    def _on_event(self) -> None:
        for link in self._links:
            link.news.set()

    async def _rpc(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return answered(error_body(None, errors.Unauthenticated()), status=401)
        envelope = json.loads(await request.read())
        assert envelope["jsonrpc"] == "2.0"
        trouble = self._trouble(envelope["method"])
        if trouble == CUT_BEFORE:
            cut(request)
        if trouble == HANG:
            await asyncio.Event().wait()
        body = self._answer(envelope, trouble)
        if trouble == CUT_AFTER:
            cut(request)
        return answered(body)

    def _answer(self, envelope: dict[str, Any], trouble: errors.Fault | str | None) -> str:
        try:
            method = methods.BY_NAME[envelope["method"]]
            params = method.params.model_validate_json(json.dumps(envelope["params"]))
            self.asked.append((method.name, params))
            if isinstance(trouble, errors.Fault):
                raise trouble
            result = self.fleet.answer(method.name, params)
            assert isinstance(result, method.result)
        except errors.Fault as fault:
            return error_body(envelope["id"], fault)
        members = result.model_dump_json(by_alias=True)
        return f'{{"jsonrpc":"2.0","id":{json.dumps(envelope["id"])},"result":{members}}}'

    def _trouble(self, method: str) -> errors.Fault | str | None:
        return self.troubles[method].popleft() if self.troubles[method] else None

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401)
        if self._trouble("ws") is not None:
            return web.Response(status=503)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        link = _Link(request)
        self._links.add(link)
        try:
            envelope = json.loads(await socket.receive_str())
            assert envelope["method"] == methods.EVENTS_SUBSCRIBE.name
            asked = api_events.EventsSubscribe.model_validate_json(json.dumps(envelope["params"]))
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(_until_closed(socket, link), name="until-closed")
                await self._follow(socket, link, asked, envelope["id"])
                reading.cancel()
        except* ConnectionError:
            pass  # the client left
        finally:
            self._links.discard(link)
        return socket

    async def _follow(
        self, socket: web.WebSocketResponse, link: _Link, asked: api_events.EventsSubscribe, request_id: Any
    ) -> None:
        stored = self.fleet.events
        position = len(stored)
        if asked.cursor is not None:
            epoch, position = api_events.split_cursor(asked.cursor)
            if epoch != EPOCH or not self.first_kept - 1 <= position <= len(stored):
                kept = {"epoch": EPOCH, "first": self.first_kept, "last": len(stored)}
                await socket.send_str(error_body(request_id, errors.CursorExpired(data=kept)))
                return
        begun = api_events.Subscription(subscription="s1", cursor=api_events.cursor_text(EPOCH, position))
        members = begun.model_dump_json(by_alias=True)
        await socket.send_str(f'{{"jsonrpc":"2.0","id":{request_id},"result":{members}}}')
        self.subscribed.append(asked)
        self.has_subscriber.set()
        async with self._subscribers_changed:
            self._subscribers_changed.notify_all()
        while not link.is_cut:
            link.news.clear()
            for number, body in enumerate(stored[position:], start=position + 1):
                if number not in self.unsent:
                    await self._send(socket, asked, body, number)
            position = len(stored)
            if (ended := self._trouble("events")) is not None:
                assert isinstance(ended, errors.Fault)
                told = api_events.EndedNotification(
                    subscription="s1", code=ended.code, message=ended.message, data=ended.data
                )
                await socket.send_str(notification(api_events.ENDED_NOTIFICATION, told))
                return
            await link.news.wait()

    async def _send(
        self, socket: web.WebSocketResponse, asked: api_events.EventsSubscribe, body: bytes, position: int
    ) -> None:
        event = events.decode(body)
        if asked.project_id not in {None, event.projectid} or asked.machine_id not in {None, event.machineid}:
            return
        if asked.types is not None and event.type not in asked.types:
            return
        told = api_events.EventNotification(
            subscription="s1", cursor=api_events.cursor_text(EPOCH, position), event=json.loads(body)
        )
        await socket.send_str(notification(api_events.EVENT_NOTIFICATION, told))


async def _until_closed(socket: web.WebSocketResponse, link: _Link) -> None:
    await socket.receive()  # a client says nothing after it has subscribed but good-bye
    link.is_cut = True
    link.news.set()


def answered(body: str, *, status: int = 200) -> web.Response:
    return web.Response(text=body, status=status, content_type="application/json")


def error_body(request_id: Any, fault: errors.Fault) -> str:
    data = {"kind": fault.kind, "retryable": fault.retryable, **fault.data}
    error = {"code": fault.code, "message": fault.message, "data": data}
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error})


def notification(method: str, params: base.Result) -> str:
    return f'{{"jsonrpc":"2.0","method":"{method}","params":{params.model_dump_json(by_alias=True)}}}'


def cut(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()
    raise ConnectionResetError("ordered by the test")
