import pytest

from paddock.client import client as gateway_client
from paddock.client import env
from paddock.contracts import errors
from tests.support import fake_gateway

WHOSE = pytest.mark.parametrize(
    ("whose", "kept"),
    [
        (env.PLATFORM, ("platform", None, None)),
        (env.project("p1"), ("project", "p1", None)),
        (env.machine("m1"), ("machine", None, "m1")),
    ],
    ids=["platform", "project", "machine"],
)


@WHOSE
async def test_variables_are_set_where_they_are_meant(
    client: gateway_client.Client,
    gateway: fake_gateway.FakeGateway,
    whose: env.Whose,
    kept: tuple[str, str | None, str | None],
) -> None:
    changed = await client.env.set(whose, {"A": "1", "B": "two\nlines"})

    assert changed.names == ["A", "B"]
    assert gateway.fleet.variables == {kept: {"A": "1", "B": "two\nlines"}}


@WHOSE
async def test_what_was_unset_is_listed_no_more(
    client: gateway_client.Client, whose: env.Whose, kept: tuple[str, str | None, str | None]
) -> None:
    await client.env.set(whose, {"A": "1", "B": "2"})
    await client.env.unset(whose, ["A", "NEVER_SET"])

    found = await client.env.list(whose)

    assert [(one.name, one.scope) for one in found.variables] == [("B", whose.scope)]
    assert kept[0] == whose.scope


async def test_a_bad_variable_is_refused_without_its_value(client: gateway_client.Client) -> None:
    with pytest.raises(errors.InvalidParams) as caught:
        await client.env.set(env.PLATFORM, {"A": "hunter2\x00"})

    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in caught.value.detail
