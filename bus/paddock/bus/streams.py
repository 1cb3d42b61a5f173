"""The streams and consumers everything relies on, made if missing and brought up to date if not.

EVENTS keeps what happened for a week and tells it on to subscribe-only monitors; DEADLETTERS keeps what could
not be read. `ensure` may run any number of times, from several processes at once; it never takes a stream
away.
"""

from typing import Final

from nats import js as jetstream
from nats.js import api
from nats.js import errors as js_errors

from paddock.bus import rights
from paddock.contracts import events, subjects

ACK_WAIT_S = 30.0
"""A delivery not acknowledged for so long is made again: the recovery time after a kill -9 of its consumer."""
EVENTS_KEPT_S = 7 * 86_400
DEAD_LETTERS_KEPT_S = 30 * 86_400
DUPLICATE_WINDOW_S = 600
"""An event id published twice within it is stored once; at least as long as the outbox retries a row."""
MAX_ACK_PENDING = 1000
"""Deliveries under way to one consumer, those waiting out a `nak` included."""
_MIB = 1024 * 1024
_EVENTS_BYTES_MAX = 1024 * _MIB
_DEAD_LETTERS_BYTES_MAX = 256 * _MIB
_STREAM_NAME_IN_USE = 10058

WAKES: Final[dict[rights.ServiceName, tuple[str, ...]]] = {
    "provisioner": events.WAKES_PROVISIONER,
    "setup_pusher": events.WAKES_SETUP_PUSHER,
    "prober": events.WAKES_PROBER,
}
"""The durable consumers of EVENTS: each service's is named after it and hears these event types."""


async def ensure(js: jetstream.JetStreamContext, *, replicas: int = 1) -> None:
    """Make every stream and consumer be as described here.

    Args:
        js: Connected with the credentials of `bootstrap`.
        replicas: Servers that hold each message; 3 in a cluster.

    Raises:
        nats.js.errors.Error: The server refused, or JetStream is not there.
        nats.errors.TimeoutError: It did not answer.

    Cancellation: safe; what is done stays done.
    """
    for config in (_events(replicas), _dead_letters(replicas)):
        await _ensure_stream(js, config)
    for durable, wakes in WAKES.items():
        # Creating a consumer that is there updates it.
        await js.add_consumer(subjects.EVENTS_STREAM, _consumer(durable, wakes))


async def _ensure_stream(js: jetstream.JetStreamContext, config: api.StreamConfig) -> None:
    try:
        await js.add_stream(config)  # one that is there with exactly this configuration is left as it is
    except js_errors.BadRequestError as error:
        if error.err_code != _STREAM_NAME_IN_USE:
            raise
        await js.update_stream(config)


def _events(replicas: int) -> api.StreamConfig:
    return api.StreamConfig(
        name=subjects.EVENTS_STREAM,
        subjects=list(subjects.EVENT_SUBJECTS),
        storage=api.StorageType.FILE,
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.OLD,
        max_age=EVENTS_KEPT_S,
        max_bytes=_EVENTS_BYTES_MAX,
        duplicate_window=DUPLICATE_WINDOW_S,
        num_replicas=replicas,
        deny_delete=True,
        republish=api.RePublish(src=subjects.MONITOR_SOURCE, dest=subjects.MONITOR_TARGET),
    )


def _dead_letters(replicas: int) -> api.StreamConfig:
    return api.StreamConfig(
        name=subjects.DEAD_LETTERS_STREAM,
        subjects=list(subjects.DEAD_LETTER_SUBJECTS),
        storage=api.StorageType.FILE,
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.OLD,
        max_age=DEAD_LETTERS_KEPT_S,
        max_bytes=_DEAD_LETTERS_BYTES_MAX,
        duplicate_window=DUPLICATE_WINDOW_S,
        num_replicas=replicas,
    )


def _consumer(durable: str, wakes: tuple[str, ...]) -> api.ConsumerConfig:
    return api.ConsumerConfig(
        durable_name=durable,
        filter_subjects=[subjects.event_filter(event_type) for event_type in wakes],
        deliver_policy=api.DeliverPolicy.ALL,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_deliver=-1,  # giving up is the stage's to decide, not the stream's
        max_ack_pending=MAX_ACK_PENDING,
    )
