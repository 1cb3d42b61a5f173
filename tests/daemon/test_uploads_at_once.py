"""One upload, several things asked of it at once: they happen one after the other, and leave nothing behind."""

import asyncio
import pathlib
import random
from typing import Any

import pytest

from paddock.bus import clock
from paddock.contracts import errors, files
from paddock.daemon import uploads


@pytest.fixture
async def bugs() -> list[dict[str, Any]]:
    """What broke where nobody waits for it."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: found.append(context))
    return found


@pytest.fixture
def made(tmp_path: pathlib.Path) -> uploads.Uploads:
    return uploads.Uploads(tmp_path / "uploads", str(tmp_path), clock.SystemClock())


async def test_aborts_of_one_upload_at_once_are_all_answered(
    made: uploads.Uploads, bugs: list[dict[str, Any]]
) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(made.abort(files.AbortParams(upload="u1")))

    assert not bugs


async def test_aborts_beside_parts_happen_one_after_the_other(
    made: uploads.Uploads, bugs: list[dict[str, Any]], tmp_path: pathlib.Path
) -> None:
    chance = random.Random(4711)
    path = str(tmp_path / "new")

    async def write(offset: int) -> None:
        await asyncio.sleep(chance.uniform(0, 0.004))  # a random moment is what is tested
        try:
            await made.write(files.WriteParams(path=path, upload="u1", offset=offset), b"x" * 10)
        except errors.BadOffset:
            assert offset

    async def abort() -> None:
        await asyncio.sleep(chance.uniform(0, 0.004))  # as above
        await made.abort(files.AbortParams(upload="u1"))

    for _ in range(30):
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            for work in (write(0), abort(), write(10), abort(), write(0), write(20), made.remove_abandoned()):
                tasks.create_task(work)
    await made.abort(files.AbortParams(upload="u1"))

    assert not bugs
    assert [one.name for one in tmp_path.iterdir()] == ["uploads"]  # noqa: ASYNC240
    assert not list((tmp_path / "uploads").iterdir())
