"""The outbox's way to the stream, by hand: what the registrar's relay does, when a test says so."""

from paddock.store import outbox
from tests.support import house


async def send_all(ground: house.House) -> int:
    """Publish what waits in the outbox. Returns how many."""
    js = (await ground.bus.service("registrar")).jetstream()
    async with ground.store.read() as tx:
        rows = await outbox.unsent(tx, limit=10_000)
    for row in rows:
        await js.publish(row.subject, row.body, headers={"Nats-Msg-Id": row.event_id})
    async with ground.store.write() as tx:
        await outbox.mark_sent(tx, [row.position for row in rows])
    return len(rows)
