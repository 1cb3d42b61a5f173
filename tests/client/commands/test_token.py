import json
import pathlib
import stat

import pytest

from tests.client.commands import conftest
from tests.support import fake_gateway


async def test_the_text_is_all_of_standard_output(paddock: conftest.Paddock) -> None:
    made = await paddock("token", "create", "ci")

    assert made.stdout == "pdk_t1_secret\n"
    assert "t1" in made.stderr


async def test_the_text_can_go_to_a_file_of_the_owner_only(
    paddock: conftest.Paddock, tmp_path: pathlib.Path
) -> None:
    made = await paddock("token", "create", "ci", "--to", "token")

    kept = tmp_path / "token"
    assert (kept.read_text(), stat.S_IMODE(kept.stat().st_mode)) == ("pdk_t1_secret\n", 0o600)
    assert "pdk_" not in made.output


async def test_a_file_that_exists_is_left_alone(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "token").write_text("mine")

    refused = await paddock("token", "create", "ci", "--to", "token")

    assert refused.exit_code == 78
    assert (tmp_path / "token").read_text() == "mine"
    assert gateway.fleet.tokens == {}


async def test_tokens_are_listed_with_their_end(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway
) -> None:
    await paddock("token", "create", "ci", "--ttl", "90d", "--json")
    await paddock("token", "revoke", "t1")

    listed = await paddock("token", "list", "--json")
    shown = await paddock("token", "list")

    token = json.loads(listed.stdout)["tokens"][0]
    assert token["expiresAt"].startswith("2027-04-15")
    assert token["revokedAt"] is not None
    assert shown.stdout.splitlines()[1].split()[:2] == ["t1", "ci"]


@pytest.mark.parametrize("ttl", ["90", "3w", "-1d", "d"])
async def test_a_lifetime_without_a_unit_we_know_is_refused(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, ttl: str
) -> None:
    refused = await paddock("token", "create", "ci", f"--ttl={ttl}")

    assert refused.exit_code == 78
    assert "write it as 30m, 12h or 90d" in refused.stderr
    assert gateway.asked == []
