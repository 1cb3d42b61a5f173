import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from paddock.client import client as gateway_client
from paddock.contracts import errors
from paddock.contracts.api import machines
from tests.support import fake_gateway

Serve = Callable[[Callable[[web.Request], Any]], Any]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Something that listens where a gateway should, and answers by the test's own handler."""
    runners: list[web.AppRunner] = []

    async def start(handler: Callable[[web.Request], Any]) -> str:
        app = web.Application()
        app.add_routes([web.post("/rpc", handler), web.get("/ws", handler)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


def saying(**members: Any) -> Callable[[web.Request], Any]:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"jsonrpc": "2.0", "id": 1, **members})

    return handler


async def test_a_call_answers_the_contract_s_model(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    project = gateway.fleet.add_project("demo")

    assert await client.projects.get(project.id) == project


async def test_many_calls_go_at_once(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.system.ping()) for _ in range(50)]

    assert all(task.result().pong for task in tasks)
    assert gateway.names_asked() == ["system.ping"] * 50


async def test_a_wrong_token_is_refused(gateway: fake_gateway.FakeGateway) -> None:
    async with gateway_client.Client(gateway.url, "pdk_other") as client:
        with pytest.raises(errors.Unauthenticated):
            await client.system.ping()


async def test_what_reads_is_asked_again_after_a_fault_that_passes(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    gateway.troubles["system.ping"].extend([errors.ShuttingDown(), errors.StoreDown()])

    await client.system.ping()

    assert gateway.names_asked() == ["system.ping"] * 3


async def test_the_last_try_s_fault_is_the_answer(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    gateway.troubles["system.ping"].extend([errors.StoreDown() for _ in range(9)])

    with pytest.raises(errors.StoreDown):
        await client.system.ping()
    assert gateway.names_asked() == ["system.ping"] * 4


async def test_what_acts_without_a_name_is_never_asked_again(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    gateway.troubles["project.create"].append(errors.StoreDown())

    with pytest.raises(errors.StoreDown):
        await client.projects.create("demo")
    assert gateway.names_asked() == ["project.create"]


async def test_a_fault_that_stays_is_not_asked_again(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    with pytest.raises(errors.NotFound, match="cannot find machine m9"):
        await client.machines.get("m9")
    assert gateway.names_asked() == ["machine.get"]


async def test_a_create_whose_answer_was_lost_makes_one_machine(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    project = gateway.fleet.add_project()
    gateway.troubles["machine.create"].append(fake_gateway.CUT_AFTER)

    made = await client.machines.create(project.id)

    assert gateway.names_asked() == ["machine.create"] * 2
    assert list(gateway.fleet.machines) == [made.id]


async def test_a_command_whose_answer_was_lost_runs_once(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    machine = gateway.fleet.add_machine(gateway.fleet.add_project().id)
    gateway.troubles["machine.exec"].extend([fake_gateway.CUT_AFTER, fake_gateway.CUT_AFTER])

    await client.machines.exec(machine.id, ["make", "it"])

    assert gateway.names_asked() == ["machine.exec"] * 3
    assert [run.command for run in gateway.fleet.commands_run] == [["make", "it"]]


async def test_a_lost_answer_of_what_cannot_be_repeated_says_that_it_may_be_done(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    gateway.troubles["project.create"].append(fake_gateway.CUT_AFTER)

    with pytest.raises(errors.NoAnswer, match=r"cannot say how project\.create ended"):
        await client.projects.create("demo")
    assert [project.name for project in gateway.fleet.projects.values()] == ["demo"]


async def test_where_nothing_listens_nothing_was_asked(gateway: fake_gateway.FakeGateway) -> None:
    await gateway.stop()

    async with gateway_client.Client(gateway.url, gateway.token) as client:
        with pytest.raises(errors.GatewayUnreachable, match="cannot reach the gateway"):
            await client.projects.create("demo")


async def test_what_could_not_be_asked_is_asked_when_the_gateway_is_there(
    gateway: fake_gateway.FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.stop()
    pause = asyncio.sleep

    async def start_meanwhile(_: float) -> None:
        monkeypatch.setattr(asyncio, "sleep", pause)
        await gateway.start()

    monkeypatch.setattr(asyncio, "sleep", start_meanwhile)

    async with gateway_client.Client(gateway.url, gateway.token) as client:
        made = await client.projects.create("demo")

    assert list(gateway.fleet.projects) == [made.id]


async def test_the_deadline_ends_a_call_that_is_not_answered(gateway: fake_gateway.FakeGateway) -> None:
    gateway.troubles["system.ping"].append(fake_gateway.HANG)

    async with gateway_client.Client(gateway.url, gateway.token, timeout_s=0.05) as client:
        with pytest.raises(errors.NoAnswer, match=r"did not answer within 0\.05 s"):
            await client.system.ping()


async def test_a_call_that_is_asked_to_take_long_has_that_much_longer(
    gateway: fake_gateway.FakeGateway,
) -> None:
    machine = gateway.fleet.add_machine(gateway.fleet.add_project().id)
    gateway.troubles["machine.exec"].append(fake_gateway.HANG)

    async with gateway_client.Client(gateway.url, gateway.token, timeout_s=0.05) as client:
        with pytest.raises(errors.NoAnswer, match=r"within 0\.15 s"):
            await client.machines.exec(machine.id, ["sleep", "9"], timeout_s=0.1)


async def test_a_fault_of_a_newer_gateway_keeps_its_code(serve: Serve) -> None:
    url = await serve(saying(error={"code": 4999, "message": "the machine is on holiday", "data": None}))

    async with gateway_client.Client(url, "t") as client:
        with pytest.raises(errors.RemoteFault, match="on holiday") as caught:
            await client.system.ping()
    assert caught.value.data["code"] == 4999


async def test_members_of_a_newer_gateway_are_passed_over(serve: Serve) -> None:
    url = await serve(saying(result={"pong": True, "mood": "fine"}))

    async with gateway_client.Client(url, "t") as client:
        assert (await client.system.ping()).pong


@pytest.mark.parametrize("members", [{"result": {"version": 3}}, {}], ids=["not the method's", "no result"])
async def test_an_answer_that_is_not_the_contract_s_is_a_bad_answer(
    serve: Serve, members: dict[str, Any]
) -> None:
    url = await serve(saying(**members))

    async with gateway_client.Client(url, "t") as client:
        with pytest.raises(errors.BadAnswer):
            await client.system.info()


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (200, errors.BadAnswer),
        (302, errors.BadAnswer),
        (401, errors.Unauthenticated),
        (404, errors.BadAnswer),
        (413, errors.PayloadTooLarge),
        (502, errors.NoAnswer),
    ],
)
async def test_an_answer_without_json_rpc_is_read_by_its_status(
    serve: Serve, status: int, fault: type[errors.Fault]
) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(text="<html>", status=status, headers={"Location": "http://127.0.0.1:1/rpc"})

    url = await serve(handler)

    async with gateway_client.Client(url, "t") as client:
        with pytest.raises(fault):
            await client.system.ping()


async def test_the_token_does_not_follow_a_redirect(serve: Serve) -> None:
    tokens: list[str | None] = []

    async def elsewhere(request: web.Request) -> web.Response:
        tokens.append(request.headers.get("Authorization"))
        return web.Response()

    target = await serve(elsewhere)

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": f"{target}/rpc"})

    async with gateway_client.Client(await serve(handler), "t") as client:
        with pytest.raises(errors.BadAnswer):
            await client.system.ping()
    assert tokens == []


async def test_parameters_that_do_not_fit_are_refused_here_without_their_values(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    with pytest.raises(errors.InvalidParams, match="cannot use these parameters: machine_id") as caught:
        await client.machines.get("NOT AN ID")

    assert "NOT AN ID" not in caught.value.message
    assert gateway.asked == []


async def test_a_rule_of_ours_is_told_in_our_words_only(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    with pytest.raises(errors.InvalidParams, match="url: must be https://"):
        await client.repositories.add("p9fx94rw7rfwp", "ftp://host/app.git", "app")

    assert gateway.asked == []


async def test_members_that_are_not_given_are_not_sent(serve: Serve) -> None:
    bodies: list[dict[str, Any]] = []

    async def handler(request: web.Request) -> web.Response:
        bodies.append(json.loads(await request.read()))
        return web.json_response({"jsonrpc": "2.0", "id": 1, "result": {"machines": []}})

    async with gateway_client.Client(await serve(handler), "t") as client:
        assert await client.machines.page() == machines.MachinePage(machines=[])

    assert bodies == [{"jsonrpc": "2.0", "id": 1, "method": "machine.list", "params": {"limit": 50}}]
