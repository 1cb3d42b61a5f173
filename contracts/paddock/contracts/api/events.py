"""Following what happens, over `GET /ws`: first what was missed since a cursor, then all that is new.

`events.subscribe` answers a subscription; from then on the gateway sends the notification `events.event` for
each event, with the cursor to go on from, and `events.ended` when a subscription cannot go on.
"""

import re
from typing import Annotated, Any

import pydantic

from paddock.contracts import errors, events
from paddock.contracts.api import base

EVENT_NOTIFICATION = "events.event"
ENDED_NOTIFICATION = "events.ended"
CURSOR_PATTERN = r"^[0-9a-z]{1,24}-[0-9]{1,19}$"
_CURSOR = re.compile(CURSOR_PATTERN, re.ASCII)


def _known_type(text: str) -> str:
    if text not in events.ALL:
        raise ValueError("must be a known event type")
    return text


Cursor = Annotated[
    str,
    pydantic.Field(
        pattern=CURSOR_PATTERN,
        description="`<stream epoch>-<sequence>` of the last event seen; what came after it is sent first.",
    ),
]
EventType = Annotated[
    str,
    pydantic.AfterValidator(_known_type),
    pydantic.Field(description="Such as machine.created."),
]


class EventsSubscribe(base.Params):
    """Follow events; only those that fit everything given. Without a cursor: from now on."""

    project_id: base.ProjectId | None = None
    machine_id: base.MachineId | None = None
    types: Annotated[list[EventType] | None, pydantic.Field(min_length=1, max_length=64)] = None
    cursor: Cursor | None = None


class EventsUnsubscribe(base.Params):
    """Stop following."""

    subscription: Annotated[str, pydantic.Field(min_length=1, max_length=40)]


class Subscription(base.Result):
    """A subscription, known on its own connection only."""

    subscription: str
    cursor: Annotated[str, pydantic.Field(description="Where it begins: what is after this is sent.")]


class EventNotification(base.Result):
    """The parameters of `events.event`."""

    subscription: str
    cursor: Annotated[str, pydantic.Field(description="Subscribe with this to go on after this event.")]
    event: Annotated[dict[str, Any], pydantic.Field(description="A CloudEvent 1.0 in structured JSON.")]


class EndedNotification(base.Result):
    """The parameters of `events.ended`: why a subscription ended, as an error object."""

    subscription: str
    code: int
    message: str
    data: dict[str, Any] = pydantic.Field(default_factory=dict)


def cursor_text(epoch: str, sequence: int) -> str:
    """The cursor after the event with this stream sequence; `epoch` changes when a stream is made anew."""
    return f"{epoch}-{sequence}"


def split_cursor(cursor: str) -> tuple[str, int]:
    """The stream epoch and the sequence of a cursor.

    Raises:
        errors.InvalidParams: It is none.
    """
    if not _CURSOR.fullmatch(cursor):
        raise errors.InvalidParams("cannot use this cursor: it must be <epoch>-<sequence>")
    epoch, _, sequence = cursor.rpartition("-")
    return epoch, int(sequence)
