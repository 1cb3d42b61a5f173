"""Events said again: an onlooker who repeats whatever is published, out of order, as a careless relay would."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

from nats import js as jetstream
from nats.aio import msg as nats_msg

from paddock.bus import credentials, rights, safeclient, streams
from paddock.contracts import events, subjects
from tests.fault import ground as grounds

TIMES = 3
ROUND_S = 0.15
_MINE = "Fault-Echo"


class Echo:
    """Hears every event; `said` are the originals in the order they came."""

    def __init__(self, nc: safeclient.SafeClient, chance: random.Random) -> None:
        self.js: jetstream.JetStreamContext = nc.jetstream()
        self.said: list[tuple[str, bytes]] = []
        self.repeated = 0
        self._nc, self._chance = nc, chance
        self._waiting: list[tuple[str, bytes]] = []

    async def listen(self) -> None:
        for pattern in subjects.EVENT_SUBJECTS:
            await self._nc.subscribe(pattern, cb=self._on_event)
        await self._nc.flush()

    async def repeat(self, stop: asyncio.Event) -> None:
        """Say each event again, three times and shuffled with the others of its time, until `stop`."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROUND_S):
                    await stop.wait()
            await self._say_what_waits()
        await (
            self._say_what_waits()
        )  # `stop` may have come during a round: what was heard before it is said again too

    async def _say_what_waits(self) -> None:
        waiting, self._waiting = self._waiting, []
        await self.say_again(waiting)

    async def say_again(self, facts: list[tuple[str, bytes]]) -> None:
        again = facts * TIMES
        self._chance.shuffle(again)
        for subject, body in again:
            # Once under its own id, as after a lost acknowledgement; then under others, which the stream takes.
            for message_id in (events.decode(body).id, f"echo-{self.repeated}"):
                headers = {"Nats-Msg-Id": message_id, _MINE: "yes"}
                await self.js.publish(subject, body, headers=headers)
            self.repeated += 1

    async def until_heard(self) -> None:
        """Wait until every service has dealt with all there is in the stream."""
        async with asyncio.timeout(grounds.WITHIN_S):
            for durable in streams.WAKES:
                while await self._left(durable):  # noqa: ASYNC110 - consumers tell nobody
                    await asyncio.sleep(grounds.POLL_S)

    async def _left(self, durable: str) -> int:
        found = await self.js.consumer_info(subjects.EVENTS_STREAM, durable)
        return (found.num_pending or 0) + (found.num_ack_pending or 0)

    async def _on_event(self, message: nats_msg.Msg) -> None:
        if _MINE not in (message.headers or {}):
            self.said.append((message.subject, message.data))
            self._waiting.append((message.subject, message.data))


@contextlib.asynccontextmanager
async def opened(ground: grounds.Ground, chance: random.Random) -> AsyncIterator[Echo]:
    """One with every right in the services' account, listening."""
    nc = await safeclient.connect(
        ground.fleet.nats.url,
        name="echo",
        creds=_creds(ground),
        inbox_prefix="_INBOX_echo",
        pending_size=2 << 20,
        timeout_s=10,
    )
    try:
        echo = Echo(nc, chance)
        await echo.listen()
        yield echo
    finally:
        await nc.close()


def _creds(ground: grounds.Ground) -> str:
    realm = ground.fleet.base.realm
    user = credentials.new_user_key()
    everything = {"allow": [">"]}
    claims = {"type": "user", "version": 2, "issuer_account": realm.app.public, **rights.UNLIMITED}
    jwt = credentials.mint(
        realm.sign_services,
        subject=user.public,
        name="echo",
        claims={**claims, "pub": everything, "sub": everything},
        issued_at_s=realm.time.now_ms() // 1000,
    )
    return credentials.creds_text(jwt, user.seed)
