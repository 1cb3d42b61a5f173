"""Peers on a real bus: a machine that answers test methods, and a service that asks them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from paddock.bus import caller, clock, responder
from paddock.contracts import ids, rpc, subjects
from tests.support import connections

S = ids.SandboxId("m1-1")
CALL = subjects.rpc_call(S)


class Text(rpc.Wire, frozen=True):
    text: str = ""


class TextBack(rpc.Answer, frozen=True):
    text: str = ""


ECHO = rpc.Method("test.echo", Text, TextBack)
SLOW = rpc.Method("test.slow", Text, TextBack)
BIG = rpc.Method("test.big", Text, TextBack)
ACT = rpc.Method("test.act", Text, TextBack, has_side_effect=True)


async def echo(params: Text, _call: responder.CallContext) -> TextBack:
    return TextBack(text=params.text)


ECHOES = responder.handler(ECHO, echo)


class Gate:
    """A handler that waits to be let go, and counts who came in."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.ended: list[str] = []
        self.is_open = asyncio.Event()
        self._came = asyncio.Event()

    async def work(self, params: Text, _call: responder.CallContext) -> TextBack:
        self.entered.append(params.text)
        self._came.set()
        try:
            await self.is_open.wait()
        finally:
            self.ended.append(params.text)
        return TextBack(text=params.text)

    async def until_entered(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.entered) < count:
                self._came.clear()
                await self._came.wait()


class Machine:
    """What a daemon is to the bus: one responder for calls, one for what must overtake them."""

    def __init__(self, calls: responder.Responder, client: Any) -> None:
        self.calls = calls
        self.client = client


@contextlib.asynccontextmanager
async def machine(
    bus: connections.Connections,
    *handlers: responder.Handler,
    sandbox: ids.SandboxId = S,
    machine_clock: clock.Clock | None = None,
    **options: Any,
) -> AsyncIterator[Machine]:
    """A machine that answers `handlers` until the block ends. Options are those of `Responder`."""
    client = await bus.daemon(sandbox, pending_size=0)
    shared: dict[str, Any] = {"clock": machine_clock or clock.SystemClock(), "queue": subjects.DAEMON_QUEUE}
    async with asyncio.TaskGroup() as tasks:
        calls = responder.Responder(
            client,
            subject=subjects.rpc_call(sandbox),
            handlers=responder.table(*handlers),
            tasks=tasks,
            **shared,
            **options,
        )
        control = responder.Responder(
            client,
            subject=subjects.rpc_control(sandbox),
            handlers=responder.table(calls.credit_handler()),
            tasks=tasks,
            **shared,
        )
        await calls.start()
        await control.start()
        try:
            yield Machine(calls, client)
        finally:
            await calls.drain(0.2)
            await control.drain(0.2)


@contextlib.asynccontextmanager
async def asker(bus: connections.Connections, **options: Any) -> AsyncIterator[caller.Caller]:
    """The prober's caller. Options are those of `Caller`."""
    client = await bus.service("prober", pending_size=0)
    settings: dict[str, Any] = {"caller_id": "prober-x1", "clock": clock.SystemClock(), **options}
    async with caller.Caller(client, **settings) as asks:
        yield asks


def answers(method: rpc.Method[Text, TextBack], text: Callable[[], str]) -> responder.Handler:
    """A handler that answers `text()`."""

    async def answer(_params: Text, _call: responder.CallContext) -> TextBack:
        return TextBack(text=text())

    return responder.handler(method, answer)
