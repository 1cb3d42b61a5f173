from paddock.client import client as gateway_client
from tests.support import fake_gateway


async def test_a_token_s_text_comes_once_and_its_revocation_shows(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    made = await client.tokens.create("ci", ttl_s=3600)
    await client.tokens.revoke(made.token.id)

    found = await client.tokens.list()

    assert made.text.startswith("pdk_")
    assert made.text not in found.model_dump_json()
    assert [one.revoked_at for one in found.tokens] == [gateway.fleet.moment()]
