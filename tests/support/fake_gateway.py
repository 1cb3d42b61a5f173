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
from paddock.contracts.api import base, methods, streams
from paddock.contracts.api import events as api_events
from tests.support import fake_fleet, fake_streams

TOKEN = "pdk_test_" + "a" * 43
CUT_BEFORE, CUT_AFTER, HANG = "cut before it is done", "cut after it is done", "never answer"
EPOCH = "e1"


@dataclasses.dataclass(eq=False)
class _Link:
    """One WebSocket; `news` is set when it has something to look at."""

    request: web.Request
    news: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    is_cut: bool = False
    serving: asyncio.Task[None] | None = None
    fault: errors.Fault | None = None


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
        self.frame_bytes = streams.FRAME_BYTES_MAX
        self.has_subscriber = asyncio.Event()
        self._subscribers_changed = asyncio.Condition()
        self._links: set[_Link] = set()
        self._link_ended = asyncio.Event()
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

    async def until_no_links(self) -> None:
        """Wait until every WebSocket was left by its client."""
        while self._links:
            self._link_ended.clear()
            await self._link_ended.wait()

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
        body = await self._answer(envelope, trouble)
        if trouble == CUT_AFTER:
            cut(request)
        return answered(body)

    async def _answer(self, envelope: dict[str, Any], trouble: errors.Fault | str | None) -> str:
        try:
            method = methods.BY_NAME[envelope["method"]]
            params = method.params.model_validate_json(json.dumps(envelope["params"]))
            self.asked.append((method.name, params))
            if isinstance(trouble, errors.Fault):
                raise trouble
            await self.fleet.before(method.name, params)
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
            if envelope["method"] != methods.EVENTS_SUBSCRIBE.name:
                await self._stream(socket, link, envelope)
                return socket
            asked = api_events.EventsSubscribe.model_validate_json(json.dumps(envelope["params"]))
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(_until_closed(socket, link), name="until-closed")
                await self._follow(socket, link, asked, envelope["id"])
                reading.cancel()
        except* ConnectionError:
            pass  # the client left
        finally:
            self._links.discard(link)
            self._link_ended.set()
        return socket

    async def _stream(self, socket: web.WebSocketResponse, link: _Link, envelope: dict[str, Any]) -> None:
        method = methods.BY_NAME[envelope["method"]]
        params = method.params.model_validate_json(json.dumps(envelope["params"]))
        self.asked.append((method.name, params))
        trouble = self._trouble(method.name)
        if trouble in {CUT_BEFORE, CUT_AFTER}:
            cut(link.request)
        if trouble == HANG:
            await _until_closed(socket, link)
            return
        stream = fake_streams.Stream(socket, self.fleet, self.frame_bytes, envelope["id"])
        if isinstance(trouble, errors.Fault):
            await stream.fail(trouble)
            return
        async with asyncio.TaskGroup() as tasks:
            link.serving = tasks.create_task(stream.serve(method.name, params), name="stream")
            if method is not methods.MACHINE_FILE_WRITE:
                leaving = tasks.create_task(_until_closed(socket, link), name="until-closed")
                leaving.add_done_callback(lambda _: link.serving and link.serving.cancel())
                link.serving.add_done_callback(lambda _: leaving.cancel())
        if link.fault is not None:
            await stream.fail(link.fault)

    def end_streams(self, fault: errors.Fault) -> None:
        """End every open stream with a fault."""
        for link in self._links:
            if link.serving is not None:
                link.fault = fault
                link.serving.cancel()

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
