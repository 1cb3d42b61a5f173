"""`paddock events`: what happened lately, and what happens, as it happens."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer

from paddock.client import transport, websocket
from paddock.client.commands import desk, failures, noun, views
from paddock.contracts import errors, events
from paddock.contracts.api import events as api

app = noun.Noun("What happens, as it happens.")

QUIET_S = 2.0
"""Kept events come at once; silence this long is their end."""
LAST = 100


@app.verb("events")
async def events_(
    at: desk.Desk,
    project: Annotated[str | None, typer.Option(help="Only of this project: id or name.")] = None,
    machine: Annotated[str | None, typer.Option(help="Only of this machine.")] = None,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only these, such as machine.created. Repeatable."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Follow, beginning after this cursor.")
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(min=0, max=10_000, help=f"How many kept events to look at; {LAST}, or 0 with --follow."),
    ] = None,
) -> None:
    """Show events: those kept lately, or with --follow each one as it happens.

    With --json each line is {"cursor": …, "event": …}; the event is a CloudEvent.
    """
    project_id = None if project is None else (await at.client.projects.find(project)).id
    is_following = follow or since is not None
    cursor = since
    if since is None:
        newest = await _newest(at)
        count = last if last is not None else 0 if is_following else LAST
        with transport.checked():
            wanted = api.EventsSubscribe(project_id=project_id, machine_id=machine, types=types)
        async for received in _kept(at, newest, count):
            if _fits(received.event, wanted):
                _show(at, received)
        cursor = newest
    if is_following:
        feed = at.client.events(project_id=project_id, machine_id=machine, types=types, cursor=cursor)
        async with feed:
            async for received in feed:
                _show(at, received)


async def _newest(at: desk.Desk) -> str:
    """The cursor of the newest event of all."""
    async with at.client.events() as feed:
        return await feed.open()


async def _kept(at: desk.Desk, newest: str, count: int) -> AsyncIterator[websocket.Received]:
    """The last `count` events of everybody, up to `newest`; fewer when fewer are kept.

    Not filtered by the gateway: only so is the newest one sure to come, and its coming is the end.
    """
    epoch, end = api.split_cursor(newest)
    begin = max(end - count, 0)
    try:
        feed = await _opened(at, api.cursor_text(epoch, begin))
    except errors.CursorExpired as expired:
        first = expired.data.get("first")
        if not isinstance(first, int) or first > end:
            return
        feed = await _opened(at, api.cursor_text(epoch, first - 1))
    while api.split_cursor(feed.cursor or newest)[1] < end:
        try:
            async with asyncio.timeout(QUIET_S):
                received = await anext(feed)
        except TimeoutError:
            break
        if api.split_cursor(received.cursor)[1] <= end:
            yield received
    await feed.aclose()


async def _opened(at: desk.Desk, cursor: str) -> websocket.EventFeed:
    feed = at.client.events(cursor=cursor)
    await feed.open()
    return feed


def _fits(event: events.Event, wanted: api.EventsSubscribe) -> bool:
    return (
        (wanted.project_id is None or event.projectid == wanted.project_id)
        and (wanted.machine_id is None or event.machineid == wanted.machine_id)
        and (wanted.types is None or event.type in wanted.types)
    )


def _show(at: desk.Desk, received: websocket.Received) -> None:
    event = received.event
    if at.is_json:
        body = events.encode(event).decode()
        print(f'{{"cursor":{json.dumps(received.cursor)},"event":{body}}}', flush=True)
        return
    facts = " ".join(f"{name}={_fact(name, value)}" for name, value in event.data.items())
    who = event.machineid or event.projectid
    print(
        failures.printable(f"{views.moment(event.time)}  {event.type:<32} {who:<14} {facts}".rstrip()),
        flush=True,
    )


def _fact(name: str, value: Any) -> str:
    """A member of an event on one line: text as it is, a moment and a reason as people read them, or JSON."""
    if name.endswith("At") and isinstance(value, int):
        return events.time_text(value)
    if isinstance(value, dict) and isinstance(value.get("message"), str):
        value = value["message"]
    return value if isinstance(value, str) else json.dumps(value)
