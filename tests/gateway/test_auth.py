"""Access tokens: made, listed without their text, revoked within seconds."""

import json

import pytest

from paddock.contracts import errors
from paddock.gateway import auth
from paddock.store import tokens
from tests.gateway import door
from tests.support import house


async def test_a_made_token_lets_in_and_a_revoked_one_does_not(gateway: door.Door) -> None:
    made = await gateway.call("token.create", name="laptop")
    ping = b'{"jsonrpc":"2.0","id":1,"method":"system.ping"}'
    mine = {"Authorization": f"Bearer {made['text']}"}

    before, _ = await gateway.post(ping, **mine)
    await gateway.call("token.revoke", tokenId=made["token"]["id"])
    after, _ = await gateway.post(ping, **mine)

    assert (before, after) == (200, 401)


async def test_no_list_shows_the_text_of_a_token(gateway: door.Door) -> None:
    made = await gateway.call("token.create", name="laptop", ttlS=60)

    listed = await gateway.call("token.list")

    assert made["text"] not in json.dumps(listed)
    assert made["text"].split("_")[2] not in json.dumps(listed)
    assert [one["name"] for one in listed["tokens"]] == ["test", "laptop"]
    assert listed["tokens"][1]["expiresAt"] is not None


async def test_a_token_that_is_not_there_cannot_be_revoked(gateway: door.Door) -> None:
    assert (await gateway.refused("token.revoke", tokenId="nope"))["data"]["kind"] == "not_found"


async def test_a_revoked_token_is_remembered_no_longer_than_the_cache_keeps_it(ground: house.House) -> None:
    authenticator = auth.Authenticator(ground.store, kept_s=0.05)
    async with ground.store.write() as tx:
        token, text = await tokens.create(tx, name="x")
    header = f"Bearer {text}"
    await authenticator.caller(header)

    async with ground.store.write() as tx:
        await tokens.revoke(tx, token.id)
    seen_at_once = authenticator.known(header)
    await ground.until(lambda _tx: _known(authenticator, header), lambda known: known is None)

    assert seen_at_once is not None
    with pytest.raises(errors.Unauthenticated):
        await authenticator.caller(header)


async def _known(authenticator: auth.Authenticator, header: str) -> auth.Caller | None:
    return authenticator.known(header)


async def test_no_token_is_kept_as_text(ground: house.House) -> None:
    authenticator = auth.Authenticator(ground.store)
    async with ground.store.write() as tx:
        _, text = await tokens.create(tx, name="x")

    await authenticator.caller(f"Bearer {text}")

    assert text not in repr(vars(authenticator))
