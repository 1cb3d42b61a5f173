from paddock.client import client as gateway_client


async def test_the_gateway_says_what_it_can_be_asked(client: gateway_client.Client) -> None:
    info = await client.system.info()

    assert info.methods == ["system.info"]
