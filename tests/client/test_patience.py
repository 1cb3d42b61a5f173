import asyncio
import contextlib
from collections.abc import Callable

import pytest

from paddock.client import patience
from paddock.contracts import errors


async def test_what_cannot_get_better_is_raised_at_once() -> None:
    waiting = patience.Patience(has_worked=True)

    for fault in (errors.NotFound(), errors.KeeperLost(), errors.Internal(), errors.Conflict()):
        with pytest.raises(type(fault)):
            await waiting.after(fault)


async def test_an_offline_machine_is_waited_for_by_who_was_at_work_there_only() -> None:
    with pytest.raises(errors.MachineOffline):
        await patience.Patience().after(errors.MachineOffline())

    await patience.Patience(has_worked=True).after(errors.MachineOffline())


async def tries_until_given_up(waiting: patience.Patience, then: Callable[[], None] = lambda: None) -> int:
    """How often it was tried again before the fault was the answer."""
    tries = 0
    async with asyncio.timeout(5):
        with contextlib.suppress(errors.BusDown):
            while True:
                await waiting.after(errors.BusDown())
                tries += 1
                then()
    return tries


async def test_patience_ends_and_every_success_renews_it() -> None:
    waiting = patience.Patience(has_worked=True, patience_s=0.05)
    first = await tries_until_given_up(waiting)
    none_left = await tries_until_given_up(waiting)
    waiting.worked()

    assert first > 0
    assert none_left == 0
    assert await tries_until_given_up(waiting) > 0


async def test_a_link_that_comes_back_and_breaks_again_renews_nothing() -> None:
    waiting = patience.Patience(has_worked=True, patience_s=0.05)

    assert await tries_until_given_up(waiting, waiting.joined) > 0


async def test_a_link_that_held_for_a_while_renews_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "STEADY_S", 0.0)
    waiting = patience.Patience(has_worked=True, patience_s=0.01)
    cuts = 0

    for _ in range(30):
        await waiting.after(errors.ChannelBroken())
        waiting.joined()
        cuts += 1

    assert cuts == 30


async def test_cut_and_back_are_told_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PATIENCE_S", 60.0)
    told: list[bool] = []
    waiting = patience.Patience(on_link=told.append)
    await waiting.after(errors.NoAnswer())
    assert told == []  # there was no link to be cut
    waiting.joined()
    for _ in range(2):
        await waiting.after(errors.NoAnswer())
        await waiting.after(errors.NoAnswer())
        waiting.joined()
        waiting.worked()

    assert told == [False, True, False, True]


async def test_asking_until_it_is_done_gives_the_result_or_the_last_fault() -> None:
    faults: list[errors.Fault] = [errors.BusDown(), errors.ShuttingDown()]

    async def ask() -> str:
        if faults:
            raise faults.pop(0)
        return "done"

    assert await patience.until_done(patience.Patience(), ask) == "done"
    faults += [errors.BusDown(), errors.Conflict("cannot")]
    with pytest.raises(errors.Conflict):
        await patience.until_done(patience.Patience(), ask)
