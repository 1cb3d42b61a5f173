"""What one connection follows: its subscriptions, each sending events at the pace the client reads them."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from paddock.contracts import errors
from paddock.contracts.api import events
from paddock.gateway import events_feed

SUBSCRIPTIONS_MAX: Final = 32
"""Of one connection."""

_EVENT_HEAD: Final = b'{"jsonrpc":"2.0","method":"' + events.EVENT_NOTIFICATION.encode() + b'","params":'

Send = Callable[[bytes], Awaitable[None]]


class Subscriptions:
    """Of one connection. They run in `tasks` and end with it, or when the client says so."""

    def __init__(self, feed: events_feed.EventsFeed, send: Send, tasks: asyncio.TaskGroup) -> None:
        """Make one.

        Args:
            feed: Where events come from.
            send: Writes one message; waits while the client does not read.
            tasks: Where followers run.
        """
        self._feed, self._send, self._tasks = feed, send, tasks
        self._running: dict[str, asyncio.Task[None] | None] = {}
        self._to_begin: list[tuple[str, events_feed.Wanted, str, int]] = []
        self._numbers = itertools.count(1)

    async def add(self, params: events.EventsSubscribe) -> events.Subscription:
        """Follow from the next `begin` on, which comes once the client knows the subscription's name.

        Raises:
            errors.CursorExpired: What came after the cursor is no longer kept.
            errors.TooManyInFlight: The connection follows as much as it may.
            errors.BusDown: Events cannot be read now.
        """
        if len(self._running) >= SUBSCRIPTIONS_MAX:
            raise errors.TooManyInFlight(f"cannot follow more than {SUBSCRIPTIONS_MAX} subscriptions at once")
        if not self._feed.is_live:
            raise errors.BusDown("cannot follow events: the bus is not connected")
        epoch, after = self._feed.epoch, self._feed.head
        if params.cursor is not None:
            epoch, after = events.split_cursor(params.cursor)
            await self._feed.start_after(epoch, after)
        wanted = events_feed.Wanted(
            project=params.project_id,
            machine=params.machine_id,
            types=None if params.types is None else tuple(params.types),
        )
        name = f"s{next(self._numbers)}"
        self._running[name] = None
        self._to_begin.append((name, wanted, epoch, after))
        return events.Subscription(subscription=name, cursor=events.cursor_text(epoch, after))

    def begin(self) -> None:
        """Start what was added and not removed since."""
        added, self._to_begin = self._to_begin, []
        for name, wanted, epoch, after in added:
            if name in self._running:
                follower = self._follow(name, wanted, epoch, after)
                self._running[name] = self._tasks.create_task(follower, name=f"subscription-{name}")

    def remove(self, name: str) -> None:
        """Stop following.

        Raises:
            errors.NotFound: This connection has no such subscription.
        """
        if name not in self._running:
            raise errors.NotFound(f"cannot find subscription {name[:40]}")
        task = self._running.pop(name)
        if task is not None:
            task.cancel()

    def end(self) -> None:
        """The connection is over."""
        self._to_begin.clear()
        for task in tuple(self._running.values()):
            if task is not None:
                task.cancel()

    async def _follow(self, name: str, wanted: events_feed.Wanted, epoch: str, after: int) -> None:
        head = msgspec.json.encode(name)
        try:
            async with contextlib.aclosing(self._feed.follow(wanted, epoch=epoch, after=after)) as found:
                async for sequence, body in found:
                    cursor = msgspec.json.encode(events.cursor_text(epoch, sequence))
                    members = b'{"subscription":' + head + b',"cursor":' + cursor + b',"event":' + body + b"}"
                    await self._send(_EVENT_HEAD + members + b"}")
        except errors.CursorExpired as fault:
            await self._send(ended(name, fault))
        finally:
            self._running.pop(name, None)


def ended(name: str, fault: errors.Fault) -> bytes:
    """The notification that a subscription cannot go on."""
    data = {"kind": fault.kind, "retryable": fault.retryable, **fault.data}
    params = {"subscription": name, "code": fault.code, "message": fault.message, "data": data}
    return msgspec.json.encode({"jsonrpc": "2.0", "method": events.ENDED_NOTIFICATION, "params": params})
