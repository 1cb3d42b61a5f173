"""The puller: nothing lost, nothing kept, soon back."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from nats import js as jetstream
from nats.js import api

from paddock.bus import lifecycle, puller, safeclient, streams
from paddock.contracts import events, ids, subjects
from tests.support import connections, nats_server

P1 = ids.ProjectId("p1")
QUICK_S = (0.05, 0.1, 0.2)


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Look again and again at what tells nobody when it changes."""
    async with asyncio.timeout(5):
        async for _ in lifecycle.every(0.01, asyncio.Event()):
            if await is_so():
                return


class Heard:
    """A handler that remembers, and lets an event end only while its gate is open."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.deliveries: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = 0
        self.most_running = 0
        self._more = asyncio.Event()

    async def handle(self, event: events.Event, delivery: puller.Delivery) -> None:
        self.ids.append(event.id)
        self.deliveries.append(delivery.deliveries)
        self._more.set()
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1

    async def count(self, wanted: int, *, within_s: float = 5) -> None:
        async with asyncio.timeout(within_s):
            while len(self.ids) < wanted:
                self._more.clear()
                await self._more.wait()


class Bench:
    """What every test here needs: somebody who publishes, somebody who looks, and the reader's own connection."""

    def __init__(
        self, bus: connections.Connections, prober: safeclient.SafeClient, registrar: safeclient.SafeClient
    ) -> None:
        self.bus = bus
        self.prober = prober
        self.registrar = registrar.jetstream()
        self.js: jetstream.JetStreamContext

    async def publish(self, *event_ids: str) -> None:
        for one in event_ids:
            await self.publish_raw(one, events.encode(self._event(one)))

    async def publish_raw(self, event_id: str, body: bytes) -> None:
        subject = self._event(event_id).nats_subject()
        await self.registrar.publish(subject, body, headers={"Nats-Msg-Id": event_id})

    async def pending(self, wanted: int) -> None:
        """Wait until the server counts so many deliveries as under way; acknowledgements are taken in their own time."""

        async def is_so() -> bool:
            info = await self.js.consumer_info("EVENTS", "prober")
            return bool(info.num_ack_pending == wanted)

        await until(is_so)

    @contextlib.asynccontextmanager
    async def reading(self, heard: Heard, **options: object) -> AsyncIterator[asyncio.Event]:
        """Run a puller; yields its `stop`, and waits for its end."""
        stop = asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            reader = puller.Puller(self.prober, "EVENTS", "prober", heard.handle, **options)  # type: ignore[arg-type]
            tasks.create_task(reader.run(stop))
            try:
                yield stop
            finally:
                stop.set()

    @staticmethod
    def _event(event_id: str) -> events.Event:
        machine = ids.MachineId("m1")
        return events.new(
            events.MACHINE_SETUP_PUSHED, event_id=event_id, at_ms=0, project=P1, machine=machine
        )


@pytest.fixture
async def bench(ready_bus: connections.Connections) -> Bench:
    made = Bench(ready_bus, await ready_bus.service("prober"), await ready_bus.service("registrar"))
    made.js = (await ready_bus.onlooker()).jetstream()
    return made


def numbered(count: int) -> list[str]:
    return [f"e{number:03}" for number in range(count)]


async def test_every_event_is_handled_once_in_order_and_acknowledged(bench: Bench) -> None:
    heard, wanted = Heard(), numbered(200)
    await bench.publish(*wanted[:100])

    async with bench.reading(heard, concurrency=1):
        await heard.count(100)
        await bench.publish(*wanted[100:])
        await heard.count(200)
        await bench.pending(0)

    assert heard.ids == wanted
    assert bench.bus.refusals == []


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_reading_goes_on_in_the_moment_the_server_is_back(
    bench: Bench, server: nats_server.NatsServer, how: str
) -> None:
    """A `fetch` in the same place sits deaf until its own time-out; a missed heartbeat takes four seconds."""
    heard, back = Heard(), asyncio.Event()
    async with bench.reading(heard):
        await bench.publish("before")
        await heard.count(1)
        await bench.pending(0)  # an acknowledgement on its way to a server that is killed would be lost
        bench.prober.watch(restored=back.set)
        if how == "kill":
            server.kill()
            server.start()
        else:
            server.restart()
        async with asyncio.timeout(10):
            await back.wait()

        await bench.publish("after")
        await heard.count(2, within_s=1)

    assert heard.ids == ["before", "after"]


async def test_stopping_hands_back_what_was_not_begun(bench: Bench) -> None:
    first, second, wanted = Heard(), Heard(), numbered(50)
    first.gate.clear()
    await bench.publish(*wanted)

    async with bench.reading(first, concurrency=2) as stop:
        await first.count(2)
        await bench.pending(50)
        stop.set()
        async with bench.reading(second):
            await second.count(48)
            assert first.running == 2, "what was begun is still being finished"
            first.gate.set()

    await bench.pending(0)
    assert sorted(first.ids + second.ids) == wanted


async def test_two_pullers_share_what_there_is(bench: Bench) -> None:
    first, second, wanted = Heard(), Heard(), numbered(200)

    async with bench.reading(first, window=4, concurrency=2), bench.reading(second, window=4, concurrency=2):
        await bench.publish(*wanted)

        async def all_are_heard() -> bool:
            return len(first.ids) + len(second.ids) >= len(wanted)

        await until(all_are_heard)
        await bench.pending(0)

    assert sorted(first.ids + second.ids) == wanted
    assert min(len(first.ids), len(second.ids)) > 0


async def test_a_handler_that_fails_is_called_again_after_growing_delays(bench: Bench) -> None:
    loop, at_s, heard = asyncio.get_running_loop(), [], Heard()

    class Failing(Heard):
        async def handle(self, event: events.Event, delivery: puller.Delivery) -> None:
            at_s.append(loop.time())
            if delivery.deliveries <= len(QUICK_S):
                raise RuntimeError("not yet")
            await heard.handle(event, delivery)

    async with bench.reading(Failing(), retry_delays_s=QUICK_S):
        await bench.publish("e1")
        await heard.count(1)
        await bench.pending(0)

    waited = [later - earlier for earlier, later in itertools.pairwise(at_s)]
    assert heard.deliveries == [4]
    assert all(was >= wanted for was, wanted in zip(waited, QUICK_S, strict=True)), waited


async def test_one_failing_event_does_not_hold_up_the_others(bench: Bench) -> None:
    heard = Heard()

    class Picky(Heard):
        async def handle(self, event: events.Event, delivery: puller.Delivery) -> None:
            if event.id == "bad":
                raise RuntimeError("never")
            await heard.handle(event, delivery)

    async with bench.reading(Picky(), concurrency=1):
        await bench.publish("bad", "good")
        await heard.count(1)
        await bench.pending(1)  # waits out its delay at the server

    assert heard.ids == ["good"]


async def test_what_cannot_be_read_is_kept_as_a_dead_letter_and_not_delivered_again(bench: Bench) -> None:
    heard = Heard()
    async with bench.reading(heard):
        await bench.publish_raw("bad", b"\xff{not json")
        await bench.publish("good")
        await heard.count(1)
        await bench.pending(0)

    letter = await bench.js.get_last_msg(subjects.DEAD_LETTERS_STREAM, "dlq.prober.>")
    assert letter.subject == "dlq.prober.machine.setup-pushed.p1.m1"
    assert letter.data == b"\xff{not json"
    assert heard.ids == ["good"]


async def test_a_dead_letter_that_cannot_be_kept_stays_with_the_stream(bench: Bench) -> None:
    heard = Heard()
    await bench.js.delete_stream(subjects.DEAD_LETTERS_STREAM)
    async with bench.reading(heard, retry_delays_s=(0.05,)):
        await bench.publish_raw("bad", b"not json")
        await bench.publish("good")
        await heard.count(1)
        assert (await bench.js.consumer_info("EVENTS", "prober")).num_ack_pending >= 1

        await streams.ensure((await bench.bus.service("bootstrap")).jetstream())
        await bench.pending(0)

    assert (await bench.js.get_last_msg(subjects.DEAD_LETTERS_STREAM, "dlq.prober.>")).data == b"not json"


async def test_what_is_held_is_not_delivered_again_however_long_it_takes(bench: Bench) -> None:
    """Begun or still waiting for its turn: the server hears that somebody is at it."""
    heard = Heard()
    heard.gate.clear()
    await _set_ack_wait(bench, 0.3)

    async with bench.reading(heard, concurrency=1, ack_wait_s=0.3):
        await bench.publish("begun", "waiting")
        await heard.count(1)
        await asyncio.sleep(1)  # three times as long as the server would wait
        heard.gate.set()
        await heard.count(2)
        await bench.pending(0)

    assert heard.ids == ["begun", "waiting"]
    assert heard.deliveries == [1, 1]


async def test_an_event_delivered_again_while_it_is_worked_on_is_not_begun_twice(bench: Bench) -> None:
    heard = Heard()
    heard.gate.clear()
    await _set_ack_wait(bench, 0.2)

    async with bench.reading(heard, ack_wait_s=60):
        await bench.publish("e1")
        await heard.count(1)

        async def came_again() -> bool:
            delivered = (await bench.js.consumer_info("EVENTS", "prober")).delivered
            return delivered is not None and delivered.consumer_seq > 1

        await until(came_again)
        heard.gate.set()
        await bench.pending(0)

    assert heard.ids == ["e1"]


async def test_no_more_is_begun_or_held_than_was_agreed(bench: Bench) -> None:
    heard, wanted = Heard(), numbered(100)
    heard.gate.clear()
    await bench.publish(*wanted)

    async with bench.reading(heard, concurrency=3, window=10):
        await heard.count(3)
        await bench.pending(10)
        await bench.prober.flush()
        assert (await bench.js.consumer_info("EVENTS", "prober")).num_ack_pending == 10
        heard.gate.set()
        await heard.count(100)

    assert heard.most_running == 3
    assert heard.ids == wanted


async def test_a_consumer_that_was_removed_and_made_again_is_read_again(bench: Bench) -> None:
    heard = Heard()
    async with bench.reading(heard):
        await bench.publish("before")
        await heard.count(1)
        await bench.pending(0)

        await bench.js.delete_consumer("EVENTS", "prober")
        await streams.ensure((await bench.bus.service("bootstrap")).jetstream())
        await bench.publish("after")
        await heard.count(3)

    # A new consumer begins at the first event kept: consumers are wake-ups, and hearing one twice is harmless.
    assert heard.ids == ["before", "before", "after"]


async def test_a_cancelled_handler_gives_its_event_to_the_next(bench: Bench) -> None:
    first, second = Heard(), Heard()
    first.gate.clear()
    await bench.publish("e1")

    async def read_without_patience() -> None:
        stop = asyncio.Event()
        reader = puller.Puller(bench.prober, "EVENTS", "prober", first.handle, retry_delays_s=QUICK_S)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lifecycle.run({"reader": reader.run}, stop, drain_s=0.05))
            await first.count(1)
            stop.set()

    with pytest.raises(ExceptionGroup) as ended:
        await read_without_patience()
    assert ended.group_contains(TimeoutError)

    async with bench.reading(second):
        await second.count(1)
        await bench.pending(0)

    assert (first.ids, second.ids, second.deliveries) == (["e1"], ["e1"], [2])


async def test_stopping_while_the_server_is_away_does_not_wait_for_it(
    bench: Bench, server: nats_server.NatsServer
) -> None:
    heard, lost = Heard(), asyncio.Event()
    bench.prober.watch(lost=lost.set)
    async with asyncio.timeout(5), bench.reading(heard) as stop:
        await bench.publish("e1")
        await heard.count(1)
        server.kill()
        await lost.wait()
        stop.set()

    assert heard.ids == ["e1"]


async def _set_ack_wait(bench: Bench, seconds: float) -> None:
    config = (await bench.js.consumer_info("EVENTS", "prober")).config
    await bench.js.add_consumer("EVENTS", config.evolve(ack_wait=seconds, name=None))
    assert (await bench.js.consumer_info("EVENTS", "prober")).config.ack_wait == seconds
    assert isinstance(config, api.ConsumerConfig)
