"""`paddock port-url`: an address that is all somebody needs."""

import asyncio
import os
import pathlib
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest

from paddock.contracts.api import ports
from tests.gateway import apps, door
from tests.support import house


@pytest.fixture
async def there(tmp_path: pathlib.Path) -> AsyncIterator[apps.Machine]:
    async with house.opened(tmp_path) as ground, door.opened(ground) as gateway, apps.machine(gateway) as up:
        yield up


async def port_url(there: apps.Machine, *arguments: str) -> tuple[int | None, str, str]:
    """The command as a process of its own: exit code, output and remarks."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paddock.client", "port-url", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PADDOCK_URL": there.gateway.url, "PADDOCK_TOKEN": there.gateway.token},
    )
    async with asyncio.timeout(30):
        output, remarks = await process.communicate()
    return process.returncode, output.decode(), remarks.decode()


async def test_the_address_is_printed_alone_and_whole(there: apps.Machine) -> None:
    code, output, remarks = await port_url(there, there.id, "3000", "--path", "/docs?x=1")

    assert (code, remarks, output.count("\n")) == (0, "", 1)
    assert output.startswith(f"http://3000--{there.id}.localhost")
    assert "/docs?x=1" in output
    assert ports.TICKET_PARAMETER in output


async def test_in_json_it_is_the_whole_answer_and_the_address_needs_no_token(there: apps.Machine) -> None:
    app = apps.App()
    async with app.listening() as port, aiohttp.ClientSession() as browser:
        code, output, _ = await port_url(
            there, "--json", "--expires-s", "60", "--path", "/x", there.id, str(port)
        )
        found = ports.PortUrl.model_validate_json(output)
        async with browser.get(found.path_url) as answer:
            assert (code, await answer.text()) == (0, "GET /x")
    assert found.expires_at


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("nosuch", "80"), 72, "cannot find machine nosuch"),
        (("{id}", "0"), 78, "cannot use these parameters: port"),
        (("{id}", "80", "--path", "x"), 78, "cannot use these parameters: path"),
        (("{id}", "80", "--expires-s", "0"), 78, "cannot use these parameters: expires_s"),
    ],
)
async def test_what_has_no_address_is_one_sentence(
    there: apps.Machine, arguments: tuple[str, ...], exit_code: int, said: str
) -> None:
    code, output, remarks = await port_url(there, *(one.format(id=there.id) for one in arguments))

    assert (code, output) == (exit_code, "")
    assert remarks.startswith(f"paddock: {said}")
    assert remarks.count("\n") == 1
