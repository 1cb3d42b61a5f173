"""The client and the command against the gateway itself, so that the fake one cannot lead us astray."""

import asyncio
import pathlib
import random
import time
from collections.abc import AsyncIterator

import pytest
import typer.testing

from paddock.client import client as gateway_client
from paddock.client import env, watch
from paddock.client.commands import root
from paddock.contracts import errors, events, ids, phases
from paddock.contracts.api import projects
from paddock.store import machines as rows
from tests.gateway import box, door, relay, toolbox
from tests.support import cutting_proxy, house

WAY = (phases.CLAIM, phases.BOOT, phases.SET_UP, phases.PROBE, phases.ACTIVATE)


@pytest.fixture
async def gateway(tmp_path: pathlib.Path) -> AsyncIterator[door.Door]:
    async with house.opened(tmp_path) as ground, door.opened(ground) as opened:
        yield opened


@pytest.fixture
async def client(gateway: door.Door) -> AsyncIterator[gateway_client.Client]:
    async with gateway_client.Client(gateway.url, gateway.token) as connected:
        yield connected


async def paddock(gateway: door.Door, *arguments: str) -> typer.testing.Result:
    environment = {"PADDOCK_URL": gateway.url, "PADDOCK_TOKEN": gateway.token}
    runner = typer.testing.CliRunner()
    return await asyncio.to_thread(runner.invoke, root.app, list(arguments), env=environment)


def port_of(gateway: door.Door) -> int:
    return int(gateway.url.rpartition(":")[2])


async def move(gateway: door.Door, machine: str, *ways: phases.Move) -> None:
    """Do what the other services would, a transaction each, and tell of it."""
    for way in ways:
        async with gateway.ground.store.write(actor="test") as tx:
            assert await rows.move(tx, machine, way) is not None
        await relay.send_all(gateway.ground)


async def test_everything_that_is_kept_comes_back_as_it_was_given(client: gateway_client.Client) -> None:
    blueprint = projects.Blueprint(
        setup_steps=[projects.SetupStep(command=["make"], name="deps")],
        probes=[projects.ExecProbe(kind="exec", command=["true"]), projects.RpcProbe(kind="rpc")],
    )
    project = await client.projects.create("demo", blueprint=blueprint)
    await client.projects.update(project.id, name="other")
    changed = await client.env.set(env.project(project.id), {"A": "hunter2", "B": "x"})
    await client.env.unset(env.project(project.id), ["B"])
    added = await client.repositories.add(project.id, "https://git.test/a.git", "a", secret="user:hunter2")
    token = await client.tokens.create("ci", ttl_s=60)

    found = await client.projects.find("other")
    variables = await client.env.list(env.project(project.id))
    listed = await client.repositories.list(project.id)
    await client.repositories.remove(added.id)
    await client.tokens.revoke(token.token.id)

    assert (found.id, found.blueprint) == (project.id, blueprint)
    assert changed.names == ["A", "B"]
    assert [one.name for one in variables.variables] == ["A"]
    assert listed.repositories == [added]
    assert added.has_secret
    assert any(one.revoked_at for one in (await client.tokens.list()).tokens)


async def test_a_created_machine_is_the_same_for_the_same_token(client: gateway_client.Client) -> None:
    project = await client.projects.create("demo")

    made = [await client.machines.create(project.id, name="box", client_token="t") for _ in range(2)]
    with pytest.raises(errors.Conflict):
        await client.machines.create(project.id, name="other", client_token="t")

    assert made[0].id == made[1].id
    assert [one.id async for one in client.machines.each(project_id=project.id)] == [made[0].id]


async def test_a_machine_is_followed_to_active_with_the_time_of_each_phase(
    gateway: door.Door, client: gateway_client.Client
) -> None:
    project = await client.projects.create("demo")
    machine = await client.machines.create(project.id)
    timeline = watch.Timeline(machine, since=machine.created_at)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        settling = group.create_task(watch.settle(client, timeline))
        await move(gateway, machine.id, *WAY)

    assert settling.result().phase is phases.Phase.ACTIVE
    assert [step.phase for step in timeline.steps()] == [
        phases.Phase.CREATED,
        *(way.target for way in WAY),
    ]
    assert [move.phase for move in (await client.machines.history(machine.id)).moves] == [
        step.phase for step in timeline.steps()
    ]


async def test_events_are_followed_and_taken_up_at_a_cursor(
    gateway: door.Door, client: gateway_client.Client
) -> None:
    async with client.events(types=[events.PROJECT_CREATED]) as feed:
        made = [await client.projects.create(name) for name in ("one", "two")]
        await relay.send_all(gateway.ground)
        async with asyncio.timeout(5):
            received = [await anext(feed) for _ in made]
    async with client.events(cursor=received[0].cursor) as feed, asyncio.timeout(5):
        again = await anext(feed)

    assert [one.event.projectid for one in received] == [one.id for one in made]
    assert again == received[1]


async def test_a_cursor_of_another_stream_has_expired(client: gateway_client.Client) -> None:
    with pytest.raises(errors.CursorExpired):
        await client.events(cursor="other-1").open()


async def test_commands_and_files_reach_the_machine(
    gateway: door.Door, client: gateway_client.Client
) -> None:
    machine = await gateway.machine_in(phases.Phase.ACTIVE)
    async with box.Box().serving(gateway, machine):
        ended = await client.machines.exec(machine, ["git", "log", "-1"])
        await client.machines.write_file(machine, "/x", "häuser")
        content = await client.machines.read_bytes(machine, "/x")

    assert (ended.exit_code, ended.stdout) == (3, "git log -1")
    assert content.decode() == "häuser"


async def test_a_command_goes_on_at_another_gateway_when_the_first_is_gone(
    gateway: door.Door,
) -> None:
    machine = await gateway.machine_in(phases.Phase.ACTIVE)
    tools = toolbox.Toolbox(gateway, machine)
    await tools.up()
    async with (
        door.opened(gateway.ground) as other,
        cutting_proxy.CuttingProxy(port_of(gateway)) as proxy,
        gateway_client.Client(proxy.url, gateway.token) as client,
        asyncio.timeout(20),
    ):
        running = await client.machine(machine).exec.start(["make"], stdin=True)
        command = tools.commands[running.id]
        await command.writes(b"one ", b"warning")
        feed = running.output()
        pieces = [await anext(feed), await anext(feed)]
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(running.wait())
            proxy.server_port = port_of(other)
            proxy.cut_all()
            await running.write(b"input", eof=True)
            await command.writes(b"two")
            await command.ends(3)
            pieces += [piece async for piece in feed]
    await tools.down()

    assert [(piece.stream, piece.offset, piece.data) for piece in pieces] == [
        ("stdout", 0, b"one "),
        ("stderr", 0, b"warning"),
        ("stdout", 4, b"two"),
    ]
    assert (waiting.result().exit_code, bytes(command.stdin)) == (3, b"input")


async def test_copies_go_on_at_another_gateway_when_the_first_is_gone(
    gateway: door.Door, tmp_path: pathlib.Path
) -> None:
    machine = await gateway.machine_in(phases.Phase.ACTIVE)
    tools = toolbox.Toolbox(gateway, machine)
    await tools.up()
    (tmp_path / "x").write_bytes(content := random.Random(0).randbytes(10_000_000))
    async with (
        door.opened(gateway.ground) as other,
        cutting_proxy.CuttingProxy(port_of(gateway)) as proxy,
        gateway_client.Client(proxy.url, gateway.token) as client,
        asyncio.timeout(30),
    ):

        def progress(done: int, total: int) -> None:
            if done > total // 2 and proxy.server_port != port_of(other):
                proxy.server_port = port_of(other)
                proxy.cut_all()

        await client.machine(machine).files.upload(tmp_path / "x", "/x", progress=progress)
        proxy.server_port = port_of(gateway)
        await client.machine(machine).files.download("/x", tmp_path / "y", progress=progress)
    await tools.down()

    assert tools.files["/x"] == content
    assert (tmp_path / "y").read_bytes() == content


async def test_a_machine_without_its_daemon_is_told_as_offline(
    gateway: door.Door, client: gateway_client.Client
) -> None:
    machine = await gateway.machine_in(phases.Phase.ACTIVE)
    began = time.monotonic()
    with pytest.raises(errors.MachineOffline) as caught:
        await client.machine(machine).files.read("~/x")
    took_s = time.monotonic() - began

    ended = await paddock(gateway, "exec", machine, "true")

    assert took_s < 1.0
    assert "lastSeenAt" in caught.value.data
    assert ended.exit_code == 75
    assert ended.stderr.startswith("paddock: ")
    assert "last seen" in ended.stderr


async def test_the_command_s_tables_are_made_of_what_the_gateway_answers(gateway: door.Door) -> None:
    machine = await gateway.machine_in(phases.Phase.ACTIVE)
    await relay.send_all(gateway.ground)

    shown = {
        name: await paddock(gateway, *words)
        for name, words in {
            "get": ("machine", "get", machine),
            "list": ("machine", "list", "--project", "demo"),
            "history": ("machine", "history", machine),
            "events": ("events", "--machine", machine),
            "projects": ("project", "list"),
            "tokens": ("token", "list"),
        }.items()
    }

    assert {name: result.stderr for name, result in shown.items() if result.exit_code} == {}
    assert "active" in shown["get"].stdout
    assert shown["list"].stdout.splitlines()[1].startswith(machine)
    assert "probing" in shown["history"].stdout
    assert events.MACHINE_ACTIVATED in shown["events"].stdout


async def test_wait_fails_with_the_machine_s_reason(
    gateway: door.Door, client: gateway_client.Client
) -> None:
    project = await client.projects.create("demo")

    async def fail() -> None:
        found = await gateway.ground.until(lambda tx: rows.find(tx, project=ids.ProjectId(project.id)), bool)
        reason = rows.reason_of("provision", errors.ProviderFailed("cannot make a sandbox: no bwrap here"))
        async with gateway.ground.store.write(actor="test") as tx:
            await rows.move(tx, found[0].id, phases.FAIL, reason=reason)
        await relay.send_all(gateway.ground)

    async with asyncio.timeout(15), asyncio.TaskGroup() as group:
        group.create_task(fail())
        result = await paddock(gateway, "machine", "create", "--project", project.id, "--wait")

    assert result.exit_code == 1
    assert "failed: provision: cannot make a sandbox: no bwrap here" in result.stderr
