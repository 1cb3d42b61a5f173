"""Keys and JWTs."""

import pytest

from paddock.bus import credentials
from paddock.contracts import errors


def test_each_kind_of_key_shows_what_it_is_and_keeps_its_seed_to_itself() -> None:
    keys = {
        "O": credentials.new_operator_key(),
        "A": credentials.new_account_key(),
        "U": credentials.new_user_key(),
    }

    for letter, key in keys.items():
        assert key.public.startswith(letter)
        assert key.seed.startswith(f"S{letter}")
        assert key.seed not in repr(key)


def test_a_key_pair_is_found_again_from_its_seed() -> None:
    key = credentials.new_user_key()

    again = credentials.KeyPair(key.seed)

    assert again.public == key.public
    assert again.sign(b"nonce") == key.sign(b"nonce")


@pytest.mark.parametrize("seed", ["", "SU", "no seed at all", "SUAX" + "A" * 54, "ü" * 58])
def test_what_is_no_seed_is_refused_without_being_repeated(seed: str) -> None:
    with pytest.raises(errors.InvalidParams) as refused:
        credentials.KeyPair(seed)

    assert not seed or seed not in str(refused.value)


def test_a_jwt_carries_what_was_minted() -> None:
    signer, user = credentials.new_account_key(), credentials.new_user_key()

    jwt = credentials.mint(
        signer, subject=user.public, name="m1-1", claims={"type": "user"}, issued_at_s=100, expires_at_s=200
    )

    claims = credentials.claims_of(jwt)
    assert (claims["iss"], claims["sub"], claims["name"]) == (signer.public, user.public, "m1-1")
    assert (claims["iat"], claims["exp"], claims["nats"]) == (100, 200, {"type": "user"})


def test_a_jwt_without_an_end_has_no_exp_member() -> None:
    jwt = credentials.mint(
        credentials.new_account_key(), subject="U", name="prober", claims={}, issued_at_s=100
    )

    assert "exp" not in credentials.claims_of(jwt)


@pytest.mark.parametrize("text", ["", "one", "a.b.c", "a.W10.c"])
def test_what_is_no_jwt_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidParams):
        credentials.claims_of(text)


def test_a_creds_file_gives_back_its_jwt_and_seed() -> None:
    text = credentials.creds_text("header.body.signature", "SUASEED")

    assert credentials.parse_creds(text) == ("header.body.signature", "SUASEED")


@pytest.mark.parametrize("text", ["", "-----BEGIN NATS USER JWT-----\nx\n------END NATS USER JWT------\n"])
def test_half_a_creds_file_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidParams):
        credentials.parse_creds(text)
