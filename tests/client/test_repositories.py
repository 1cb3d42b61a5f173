import pytest

from paddock.client import client as gateway_client
from paddock.contracts import errors
from tests.support import fake_gateway


async def test_a_private_repository_is_added_and_its_secret_not_answered(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    project = gateway.fleet.add_project()

    added = await client.repositories.add(
        project.id, "https://git.test/a.git", "a", branch="main", secret="user:hunter2"
    )

    assert added.has_secret
    assert gateway.fleet.secrets == {added.id: "user:hunter2"}
    assert "hunter2" not in added.model_dump_json()


async def test_repositories_are_listed_for_their_project_and_removed(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    ours, theirs = gateway.fleet.add_project("a"), gateway.fleet.add_project("b")
    added = [await client.repositories.add(one.id, "file:///x", "x") for one in (ours, theirs)]

    before = await client.repositories.list(ours.id)
    await client.repositories.remove(added[0].id)

    assert before.repositories == added[:1]
    assert (await client.repositories.list(ours.id)).repositories == []


@pytest.mark.parametrize("url", ["ext::sh -c x", "--upload-pack=x", "https://user:pw@git.test/a"])
async def test_what_git_would_misread_is_refused_here(client: gateway_client.Client, url: str) -> None:
    with pytest.raises(errors.InvalidParams, match="url: "):
        await client.repositories.add("p1", url, "x")
