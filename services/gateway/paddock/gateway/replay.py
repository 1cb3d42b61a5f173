"""Reading stored events from the stream: what it holds, and everything after a position.

A throw-away consumer in the server's memory does the filtering. It ends with the reading; one that is left behind by a
crash ends by itself.
"""

import contextlib
import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import msgspec
import nats.errors
from nats.js import api
from nats.js import errors as js_errors

from paddock.bus import safeclient
from paddock.contracts import errors, subjects

BATCH: Final = 256
REQUEST_S: Final = 5.0
LEFT_BEHIND_S: Final = 30.0
"""A consumer nobody reads from for so long ends by itself."""
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class Range(msgspec.Struct, frozen=True):
    """What the stream holds. `epoch` differs when the stream was made anew, and its numbers begin again."""

    epoch: str
    first: int
    last: int


class _State(msgspec.Struct):
    first_seq: int
    last_seq: int


class _Info(msgspec.Struct):
    created: str
    state: _State


_decode_info = msgspec.json.Decoder(_Info).decode
FAILURES: Final = (nats.errors.Error, js_errors.Error, msgspec.MsgspecError, TimeoutError)


async def held(nc: safeclient.SafeClient) -> Range:
    """What the stream holds now.

    Raises:
        errors.BusDown: It cannot be asked.
    """
    try:
        reply = await nc.request(f"$JS.API.STREAM.INFO.{subjects.EVENTS_STREAM}", b"", timeout=REQUEST_S)
        info = _decode_info(reply.data)
    except FAILURES as error:
        raise errors.BusDown("cannot read the events", detail=repr(error)) from error
    return Range(_epoch(info.created), info.state.first_seq, info.state.last_seq)


async def read(
    nc: safeclient.SafeClient, filters: Sequence[str], *, after: int
) -> AsyncGenerator[tuple[int, bytes], None]:
    """Every stored event behind position `after` that fits one of the filters: its sequence and its JSON.

    Ends at what was the end when reading caught up with it.

    Raises:
        errors.BusDown: Reading broke off; go on after the last one seen.
    """
    js = nc.jetstream(timeout=REQUEST_S)
    name = f"gateway-{secrets.token_hex(8)}"
    try:
        info = await js.add_consumer(subjects.EVENTS_STREAM, _config(name, filters, after))
        pending = info.num_pending or 0
        reader = await js.pull_subscribe_bind(name, subjects.EVENTS_STREAM)
        try:
            while pending:
                for message in await reader.fetch(min(BATCH, pending), timeout=REQUEST_S):
                    metadata = message.metadata
                    pending = metadata.num_pending
                    yield metadata.sequence.stream, message.data
        finally:
            with contextlib.suppress(*FAILURES):
                await reader.unsubscribe()
                await js.delete_consumer(subjects.EVENTS_STREAM, name)
    except FAILURES as error:
        raise errors.BusDown("cannot read the events", detail=repr(error)) from error


def _config(name: str, filters: Sequence[str], after: int) -> api.ConsumerConfig:
    return api.ConsumerConfig(
        name=name,
        deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=after + 1,
        filter_subjects=list(filters),
        ack_policy=api.AckPolicy.NONE,
        mem_storage=True,
        inactive_threshold=LEFT_BEHIND_S,
    )


def _epoch(created: str) -> str:
    """The stream's birth as a short token: its digits to the microsecond, in base 36."""
    digits = "".join(character for character in created.partition("+")[0] if character.isdigit())[:20]
    number, text = int(digits or 0), ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        text = _DIGITS[digit] + text
    return text or "0"
