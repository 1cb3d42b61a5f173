"""A stack on one machine, whole: it starts, works, stops, and its machines outlive it."""

import asyncio
import contextlib
import os
import pathlib
from collections.abc import AsyncIterator

import pytest

from paddock.client import client as paddock_client
from paddock.contracts import errors, phases
from paddock.local import data, runtime, sandboxes, stack, wiring
from tests.local import leftovers
from tests.support import processes

ACTIVE_S = 60.0


@contextlib.asynccontextmanager
async def host(folder: pathlib.Path) -> AsyncIterator[tuple[str, wiring.Settings]]:
    """The best provider here, and settings that allow it; every sandbox is gone afterwards."""
    with sandboxes.Host(folder, runtime.find()) as here:
        provider, _ = await sandboxes.best(runtime.find())
        try:
            yield provider, wiring.Settings(data=folder, gateway_port=0, unsafe_process_provider=True)
        finally:
            await here.remove_everything()


async def active_machine(client: paddock_client.Client, provider: str) -> str:
    project = await client.projects.create("test", provider=provider)
    machine = await client.machines.create(project.id, wait_s=ACTIVE_S)
    assert machine.phase is phases.Phase.ACTIVE, machine.reason
    return machine.id


async def said(client: paddock_client.Client, machine: str, *command: str) -> str:
    result = await client.machines.exec(machine, command)
    assert result.exit_code == 0, result.stderr
    return result.stdout


async def test_a_machine_outlives_the_stack_and_answers_the_next_one(tmp_path: pathlib.Path) -> None:
    async with host(tmp_path) as (provider, settings):
        async with (
            stack.Stack(settings) as first,
            paddock_client.Client(first.url, first.token()) as client,
        ):
            machine = await active_machine(client, provider)
            await said(client, machine, "sh", "-c", "sleep 300 & echo $! > ~/sleeper")

        async with (
            stack.Stack(settings) as second,
            paddock_client.Client(second.url, second.token()) as client,
        ):
            async with asyncio.timeout(30):
                await until_online(client, machine)
            alive = await said(client, machine, "sh", "-c", "kill -0 $(cat ~/sleeper) && echo alive")
            generation = (await client.machines.get(machine)).generation

        assert first.url == second.url
        assert (alive, generation) == ("alive\n", 1)


async def until_online(client: paddock_client.Client, machine: str) -> None:
    """The daemon looks for the bus again by itself, within seconds; nothing tells us when."""
    while True:
        with contextlib.suppress(errors.MachineOffline):
            await said(client, machine, "true")
            return
        await asyncio.sleep(0.05)


async def test_nothing_of_a_stack_runs_after_its_block(tmp_path: pathlib.Path) -> None:
    before = leftovers.children()
    async with stack.Stack(wiring.Settings(data=tmp_path, gateway_port=0)) as running:
        servers = [running.base.nats.pid, running.base.redis.pid]
        assert all(processes.is_running(pid) for pid in servers)

    assert not any(processes.is_running(pid) for pid in servers)
    assert leftovers.children() <= before


async def test_a_data_folder_is_used_by_one_stack_at_a_time(tmp_path: pathlib.Path) -> None:
    settings = wiring.Settings(data=tmp_path, gateway_port=0)
    async with stack.Stack(settings):
        with pytest.raises(errors.InUse, match=f"process {os.getpid()} uses it"):
            async with stack.Stack(settings):
                pass


async def test_what_fails_inside_the_block_comes_out_as_itself(tmp_path: pathlib.Path) -> None:
    before = leftovers.children()
    with pytest.raises(errors.MachineGone):
        async with stack.Stack(wiring.Settings(data=tmp_path, gateway_port=0)):
            raise errors.MachineGone

    assert leftovers.children() <= before


async def test_the_stack_goes_on_after_both_servers_were_killed(tmp_path: pathlib.Path) -> None:
    async with (
        host(tmp_path) as (provider, settings),
        stack.Stack(settings) as running,
        paddock_client.Client(running.url, running.token()) as client,
    ):
        await running.base.nats.kill()
        await running.base.redis.kill()

        machine = await active_machine(client, provider)

        assert await said(client, machine, "echo", "well") == "well\n"


async def token_that_works(settings: wiring.Settings) -> str:
    async with (
        stack.Stack(settings) as running,
        paddock_client.Client(running.url, running.token()) as client,
    ):
        assert (await client.system.info()).methods
        return running.token()


async def test_the_access_token_is_made_once_and_made_again_for_a_new_database(
    tmp_path: pathlib.Path,
) -> None:
    settings = wiring.Settings(data=tmp_path, gateway_port=0)

    first, second = await token_that_works(settings), await token_that_works(settings)
    data.DataFolder(tmp_path).database_path.unlink()
    third = await token_that_works(settings)

    assert first == second
    assert second != third
