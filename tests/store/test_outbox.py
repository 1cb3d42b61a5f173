"""Events wait in order until the stream took them, and one that is refused holds up nobody else."""

import pytest

from paddock.contracts import events
from paddock.store import engine, outbox, projects


async def _write(store: engine.Store, project: projects.Project, *types: str) -> None:
    async with store.write(actor="test", caused_by="e0") as tx:
        for event_type in types:
            await outbox.add(tx, event_type, project=project.id, data={"n": 1})


async def test_rows_wait_in_order_of_writing_until_marked(
    store: engine.Store, project: projects.Project
) -> None:
    await _write(store, project, "project.updated", "project.env-changed")

    async with store.write() as tx:
        rows = await outbox.unsent(tx, limit=10)
        await outbox.mark_sent(tx, [rows[0].position])
    async with store.read() as tx:
        left = await outbox.unsent(tx, limit=10)

    assert [row.subject.split(".")[1] for row in rows] == ["created", "updated", "env-changed"]
    assert left == rows[1:]
    fact = events.decode(rows[1].body)
    assert (fact.actor, fact.causationid, fact.data) == ("test", "e0", {"n": 1})


async def test_a_rolled_back_fact_never_leaves(store: engine.Store, project: projects.Project) -> None:
    rang: list[int] = []
    store.on_commit = lambda: rang.append(1)

    async def undecided() -> None:
        async with store.write() as tx:
            await outbox.add(tx, "project.updated", project=project.id)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await undecided()

    async with store.read() as tx:
        assert [row.subject.split(".")[1] for row in await outbox.unsent(tx, limit=10)] == ["created"]
    assert rang == []


async def test_a_commit_with_news_rings_and_one_without_does_not(
    store: engine.Store, project: projects.Project
) -> None:
    rang: list[int] = []
    store.on_commit = lambda: rang.append(1)

    await _write(store, project, "project.updated")
    async with store.write():
        pass

    assert rang == [1]


async def test_a_row_refused_five_times_is_parked_and_the_others_go_on(
    store: engine.Store, project: projects.Project
) -> None:
    await _write(store, project, "project.updated")
    async with store.read() as tx:
        bad, good = await outbox.unsent(tx, limit=10)

    async with store.write() as tx:
        parked = [await outbox.mark_refused(tx, bad.position, "no") for _ in range(5)]

    async with store.read() as tx:
        assert parked == [False] * 4 + [True]
        assert await outbox.unsent(tx, limit=10) == [good]
        assert await outbox.depth(tx) == (1, 1)


async def test_sent_rows_are_forgotten_after_their_time_and_unsent_ones_never(
    store: engine.Store, project: projects.Project
) -> None:
    await _write(store, project, "project.updated")
    async with store.write() as tx:
        rows = await outbox.unsent(tx, limit=10)
        await outbox.mark_sent(tx, [rows[0].position])

    async with store.write() as tx:
        assert await outbox.forget_sent(tx, older_than_ms=60_000) == 0
        assert await outbox.forget_sent(tx, older_than_ms=-1) == 1

    async with store.read() as tx:
        assert await outbox.unsent(tx, limit=10) == rows[1:]
