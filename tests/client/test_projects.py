import pytest

from paddock.client import client as gateway_client
from paddock.contracts import errors
from paddock.contracts.api import projects
from tests.support import fake_gateway

BLUEPRINT = projects.Blueprint(
    setup_steps=[projects.SetupStep(command=["make", "deps"])],
    probes=[projects.ExecProbe(kind="exec", command=["true"]), projects.RpcProbe(kind="rpc")],
)


async def test_a_project_comes_back_with_its_blueprint(client: gateway_client.Client) -> None:
    made = await client.projects.create("demo", provider="process", blueprint=BLUEPRINT)

    assert made.blueprint == BLUEPRINT
    assert await client.projects.get(made.id) == made


async def test_an_update_leaves_what_is_not_given(client: gateway_client.Client) -> None:
    made = await client.projects.create("demo", blueprint=BLUEPRINT)

    changed = await client.projects.update(made.id, name="other")

    assert (changed.name, changed.blueprint) == ("other", BLUEPRINT)


async def test_a_project_is_found_by_id_and_by_name(client: gateway_client.Client) -> None:
    made = await client.projects.create("Demo of it")

    assert await client.projects.find(made.id) == made
    assert await client.projects.find("Demo of it") == made


async def test_an_id_goes_before_a_name_that_looks_like_one(client: gateway_client.Client) -> None:
    first = await client.projects.create("first")
    await client.projects.create(first.id)

    assert await client.projects.find(first.id) == first


async def test_a_name_on_a_later_page_is_found(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    for number in range(60):
        gateway.fleet.add_project(f"project {number}")

    assert (await client.projects.find("project 59")).id == "p60"


async def test_a_name_that_several_have_is_a_conflict(client: gateway_client.Client) -> None:
    for _ in range(2):
        await client.projects.create("twin")

    with pytest.raises(errors.Conflict, match="2 have this name"):
        await client.projects.find("twin")


async def test_neither_id_nor_name_is_not_found(client: gateway_client.Client) -> None:
    with pytest.raises(errors.NotFound, match="cannot find the project 'nobody'"):
        await client.projects.find("nobody")


async def test_a_project_with_machines_is_not_deleted(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    empty, used = gateway.fleet.add_project("a"), gateway.fleet.add_project("b")
    gateway.fleet.add_machine(used.id)

    await client.projects.delete(empty.id)
    with pytest.raises(errors.InUse):
        await client.projects.delete(used.id)

    assert list(gateway.fleet.projects) == [used.id]
