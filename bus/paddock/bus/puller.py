"""The continuous reader of one durable consumer: what wakes a service.

Every event reaches the handler at least once and is acknowledged after the handler returned. It keeps one pull request
open at the server, asks again in the moment a lost connection is back, and hands back what it has not begun when it is
stopped. Several pullers of one durable share its events. Not for readers who want to see every event: those use an
ephemeral consumer.
"""

import asyncio
import collections
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import nats.errors
from nats import js as jetstream
from nats.aio import msg as nats_msg
from nats.aio import subscription

from paddock.bus import lifecycle, logs, safeclient, streams
from paddock.contracts import errors, events, subjects

log = logs.get(__name__)

RETRY_DELAYS_S: Final = (1.0, 5.0, 15.0, 60.0)
"""After a handler failed for the first, second … time; the last one from then on."""
REFUSED_PAUSE_S = 0.25
"""Between pull requests that the server does not take: no consumer, no leader, shutting down."""
HAND_BACK_S = 2.0
"""How long a stopping puller waits for what the server had already sent."""
_EXPIRES_S = 30.0
_HEARTBEAT_S = 2.0
_HEARTBEAT, _EXPIRED = "100", "408"


@dataclasses.dataclass(frozen=True, slots=True)
class Delivery:
    """How an event came. `deliveries` counts from 1; `sequence` is the stream's."""

    subject: str
    sequence: int
    deliveries: int


Handler = Callable[[events.Event, Delivery], Awaitable[None]]
"""May be called again with the same event, and at the same time with others. What it raises is logged and tried again."""


class _PullRequest(msgspec.Struct, frozen=True):
    """The body JetStream expects; durations in nanoseconds."""

    batch: int
    expires: int
    idle_heartbeat: int


class Puller:
    """One reader; run it as a loop of `lifecycle.run`."""

    def __init__(
        self,
        nc: safeclient.SafeClient,
        stream: str,
        durable: str,
        handler: Handler,
        *,
        concurrency: int = 16,
        window: int = 64,
        ack_wait_s: float = streams.ACK_WAIT_S,
        retry_delays_s: tuple[float, ...] = RETRY_DELAYS_S,
    ) -> None:
        """Make one; nothing is asked of the server before `run`.

        Args:
            nc: Better with some `pending_size`, so that acknowledgements outlive a short break.
            stream: Where the durable consumer is.
            durable: Made by `streams.ensure`; when it is missing the puller waits for it.
            handler: What is done with each event.
            concurrency: Handlers at work at the same time.
            window: Events held, begun or not; at least `concurrency`.
            ack_wait_s: The consumer's; three times within it the server hears that an event is still worked on.
            retry_delays_s: Seconds until an event comes back, by how often it was delivered.
        """
        self._nc = nc
        self._durable = durable
        self._handler = handler
        self._concurrency = concurrency
        self._window = window
        self._ack_wait_s = ack_wait_s
        self._retry_delays_s = retry_delays_s
        self._pull_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._inbox = nc.new_inbox()
        self._round = 0  # names the pull requests that count; answers to older ones are passed over
        self._asked = 0  # messages the open requests may still bring
        self._heard_at = 0.0
        self._held: dict[int, nats_msg.Msg] = {}  # by stream sequence: the latest delivery of each
        self._waiting: collections.deque[int] = collections.deque()
        self._running = 0
        self._is_stopping = False
        self._is_restored = False
        self._is_refused = False
        self._look = lifecycle.Wakeup()

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop`; then hand back what is not begun and finish what is.

        Raises:
            nats.errors.Error: The connection was closed for good before it began.

        Cancellation: handlers are cancelled, their events come back after the first delay.
        """
        async with asyncio.TaskGroup() as side:
            keeper = side.create_task(self._keep_alive(), name=f"keep {self._durable}")
            try:
                # Handlers go on being kept alive after `stop`, until the last has ended.
                async with asyncio.TaskGroup() as handlers:
                    await self._read(stop, handlers)
            finally:
                keeper.cancel()

    async def _read(self, stop: asyncio.Event, handlers: asyncio.TaskGroup) -> None:
        async def on_message(message: nats_msg.Msg) -> None:
            await self._receive(message, handlers)

        # Subscribe before the first request: its answer can come before publish() returns.
        incoming = await self._nc.subscribe(f"{self._inbox}.*", cb=on_message)
        unwatch = self._nc.watch(restored=self._on_restored)
        try:
            while not stop.is_set():
                await self._tend()
                await self._look.wait(_HEARTBEAT_S / 2, stop)
        finally:
            self._is_stopping = True
            unwatch()
            await self._hand_back(incoming)

    async def _tend(self) -> None:
        """Ask again where the server has forgotten us, or refused."""
        is_silent = self._asked > 0 and self._now() - self._heard_at > 2 * _HEARTBEAT_S + 0.5
        if self._is_restored or is_silent:
            log.info("pull_renewed", durable=self._durable, reason="silence" if is_silent else "reconnect")
            self._is_restored = False
            self._round += 1
            self._asked = 0
        if not self._asked:
            await self._ask()

    async def _ask(self) -> None:
        room = self._window - self._asked - len(self._held)
        # Refill by the quarter: a request for each message would double the traffic.
        is_worth_it = room > 0 and (not self._asked or room >= self._window // 4)
        if self._is_stopping or not is_worth_it or not self._nc.is_connected:
            return
        if not self._asked:
            self._heard_at = self._now()
        self._asked += room
        request = _PullRequest(
            batch=room, expires=int(_EXPIRES_S * 1e9), idle_heartbeat=int(_HEARTBEAT_S * 1e9)
        )
        try:
            await self._nc.publish(
                self._pull_subject, msgspec.json.encode(request), reply=f"{self._inbox}.{self._round}"
            )
        except nats.errors.Error:
            self._asked = 0  # disconnected in between: `_tend` asks again

    async def _receive(self, message: nats_msg.Msg, handlers: asyncio.TaskGroup) -> None:
        status = (message.headers or {}).get("Status")
        if status is not None:
            await self._on_status(status, message)
            return
        self._heard_at = self._now()
        self._is_refused = False
        self._asked = max(0, self._asked - 1)
        if self._is_stopping:
            await self._settle(message.nak())
            return
        sequence = message.metadata.sequence.stream
        is_new = sequence not in self._held
        self._held[sequence] = message
        if (
            is_new
        ):  # else it is being worked on and came again; it is answered once, under its latest delivery
            self._waiting.append(sequence)
            self._begin(handlers)
        await self._ask()

    async def _on_status(self, status: str, message: nats_msg.Msg) -> None:
        """A pull request ended, or goes on without messages. Only these carry our inbox as their subject."""
        if not message.subject.endswith(f".{self._round}"):
            return
        self._heard_at = self._now()
        if status == _HEARTBEAT:
            self._is_refused = False
            return
        left = int((message.headers or {}).get("Nats-Pending-Messages", "0"))
        self._asked = max(0, self._asked - left) if left else 0
        if status == _EXPIRED:
            await self._ask()
            return
        if not self._is_refused:  # said once, however often it is tried
            log.warning("pull_refused", durable=self._durable, status=status)
        self._is_refused = True
        asyncio.get_running_loop().call_later(REFUSED_PAUSE_S, self._look.set)

    def _begin(self, handlers: asyncio.TaskGroup) -> None:
        while self._waiting and self._running < self._concurrency and not self._is_stopping:
            sequence = self._waiting.popleft()
            self._running += 1
            handlers.create_task(self._work(sequence, handlers), name=f"{self._durable} {sequence}")

    async def _work(self, sequence: int, handlers: asyncio.TaskGroup) -> None:
        try:
            await self._handle(sequence)
        finally:
            del self._held[sequence]
            self._running -= 1
            self._begin(handlers)
        await self._ask()

    async def _handle(self, sequence: int) -> None:
        message = self._held[sequence]
        delivery = Delivery(message.subject, sequence, message.metadata.num_delivered)
        try:
            try:
                event = events.decode(message.data)
            except errors.ParseError as error:
                await self._bury(message, delivery, error)
            else:
                await self._handler(event, delivery)
        except asyncio.CancelledError:
            await self._settle(self._held[sequence].nak(delay=self._retry_delays_s[0]))
            raise
        except Exception:  # around one event handler: whatever it was, the event comes again
            delay_s = self._retry_delays_s[min(delivery.deliveries, len(self._retry_delays_s)) - 1]
            log.exception(
                "event_failed",
                durable=self._durable,
                subject=delivery.subject,
                sequence=sequence,
                deliveries=delivery.deliveries,
                again_in_s=delay_s,
            )
            await self._settle(self._held[sequence].nak(delay=delay_s))
        else:
            await self._settle(self._held[sequence].ack())

    async def _bury(self, message: nats_msg.Msg, delivery: Delivery, error: errors.ParseError) -> None:
        """Keep what cannot be read where somebody can look at it; only then is it acknowledged."""
        context = jetstream.JetStreamContext(self._nc)
        await context.publish(
            subjects.dead_letter(self._durable, delivery.subject),
            message.data,
            stream=subjects.DEAD_LETTERS_STREAM,
            # One letter, however often it was delivered.
            headers={"Nats-Msg-Id": f"dlq-{self._durable}-{delivery.sequence}"},
        )
        log.error(
            "event_buried",
            durable=self._durable,
            subject=delivery.subject,
            sequence=delivery.sequence,
            error=error.message,
        )

    async def _keep_alive(self) -> None:
        """Tell the server that what is held is still worked on, three times within the time it waits."""
        while True:
            await asyncio.sleep(self._ack_wait_s / 3)
            for message in list(self._held.values()):
                await self._settle(message.in_progress())

    async def _hand_back(self, incoming: subscription.Subscription) -> None:
        """End the open requests and return, at once and for another puller, what was not begun."""
        while self._waiting:
            message = self._held.pop(self._waiting.popleft())
            await self._settle(message.nak())
        # Draining, not unsubscribing: what the server has already sent still comes in, and goes back.
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            if self._nc.is_connected:
                async with asyncio.timeout(HAND_BACK_S):
                    await incoming.drain()  # type: ignore[no-untyped-call]  # nats-py's
            else:
                await incoming.unsubscribe()

    async def _settle(self, answer: Awaitable[None]) -> None:
        """Send an answer to a delivery; when it cannot be sent the delivery is made again, which is harmless."""
        try:
            await answer
        except nats.errors.Error as error:
            log.warning("ack_not_sent", durable=self._durable, error=type(error).__name__)

    def _on_restored(self) -> None:
        self._is_restored = True
        self._look.set()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
