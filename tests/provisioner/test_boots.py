"""Turns at booting: so many at once, the next when one is over, and nobody waits for ever."""

import asyncio
import contextlib
import os

import pytest

from paddock.provisioner.providers import boots


async def _in_time(turns: boots.Boots) -> bool:
    """Whether a turn can be had now."""
    try:
        async with asyncio.timeout(5):
            os.close(await _begin(turns))
    except TimeoutError:
        return False
    return True


async def _begin(turns: boots.Boots) -> int:
    """Take a turn as a provider does; returns the sandbox's end of it."""
    async with turns.turn() as booting:
        inside = os.dup(booting)
        os.close(booting)
    return inside


async def test_the_next_waits_until_one_of_those_before_is_ready() -> None:
    turns = boots.Boots(2)
    first, second = await _begin(turns), await _begin(turns)
    third = asyncio.ensure_future(_begin(turns))
    await asyncio.sleep(0)
    assert not third.done()

    os.close(second)  # its daemon is ready

    async with asyncio.timeout(5):
        os.close(await third)
    os.close(first)


async def test_a_start_that_made_nothing_ends_its_turn() -> None:
    turns = boots.Boots(1)
    with contextlib.suppress(ZeroDivisionError):
        async with turns.turn() as booting:
            os.close(booting)
            raise ZeroDivisionError

    assert await _in_time(turns)


async def test_a_sandbox_that_never_is_ready_holds_the_others_up_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(boots, "BOOT_MAX_S", 0.05)
    turns = boots.Boots(1)
    stuck = await _begin(turns)

    assert await _in_time(turns)
    os.close(stuck)


async def test_giving_up_waiting_costs_no_turn() -> None:
    turns = boots.Boots(1)
    first = await _begin(turns)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await _begin(turns)
    os.close(first)

    assert await _in_time(turns)
