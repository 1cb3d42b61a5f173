"""Streams that are stopped in the very moment they are asked for."""

import asyncio
from typing import Any

import pytest

from paddock.contracts import errors
from paddock.contracts.api import base
from paddock.gateway import streams


async def nowhere(_message: bytes) -> None:
    raise AssertionError("nothing is said of a stream that nobody was told of")


async def never(_stream: streams.AnyStream) -> base.Result:
    raise AssertionError("it was stopped before")


@pytest.mark.parametrize("how", ["shut", "end"])
async def test_a_stream_that_is_stopped_before_its_work_began_is_answered_and_forgotten(how: str) -> None:
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        of_connection = streams.Streams(nowhere, nowhere, tasks)
        stream: streams.Stream[Any] = of_connection.add(never, method="m", request_id="r")
        if how == "shut":
            await of_connection.shut(errors.ShuttingDown())
        else:
            of_connection.end()
        answer = await stream.answer

    assert isinstance(answer, errors.ShuttingDown)
    assert not of_connection._running
