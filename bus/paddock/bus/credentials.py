"""Keys and the JWTs they sign: how anybody proves to the bus who they are.

An nkey is an Ed25519 key whose first letter says what it is (O operator, A account, U user; S before it marks
the secret half, the seed). A NATS JWT is claims signed by such a key. Nothing here knows who may do what:
that is `rights`.
"""

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

import nkeys

from paddock.contracts import errors

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_SEED_BYTES = 32
_JWT_BLOCK = re.compile(r"-----BEGIN NATS USER JWT-----\s+(\S+)\s+------END NATS USER JWT------")
_SEED_BLOCK = re.compile(r"-----BEGIN USER NKEY SEED-----\s+(\S+)\s+------END USER NKEY SEED------")


class KeyPair:
    """One nkey. Prints as its public half."""

    def __init__(self, seed: str) -> None:
        """Take the pair from its seed.

        Raises:
            errors.InvalidParams: The text is no seed.
        """
        try:
            prefix, raw = nkeys.decode_seed(bytearray(seed.encode()))
            # nkeys passes over the checksum: a seed with a typing error would be another key.
            if nkeys.encode_seed(bytes(raw), prefix).decode() != seed:
                raise nkeys.ErrInvalidSeed
            self._pair = nkeys.from_seed(bytearray(seed.encode()))
            self.public: str = self._pair.public_key.decode()
        except (nkeys.NkeysError, ValueError) as error:
            raise errors.InvalidParams("cannot use this key: it is no nkey seed") from error
        self.seed = seed

    def __repr__(self) -> str:
        return f"KeyPair({self.public})"

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature."""
        signature: bytes = self._pair.sign(data)
        return signature


def new_operator_key() -> KeyPair:
    return _new_key(nkeys.PREFIX_BYTE_OPERATOR)


def new_account_key() -> KeyPair:
    """Also what signs users for an account: a signing key is an account key of its own."""
    return _new_key(nkeys.PREFIX_BYTE_ACCOUNT)


def new_user_key() -> KeyPair:
    return _new_key(nkeys.PREFIX_BYTE_USER)


def mint(
    signer: KeyPair,
    *,
    subject: str,
    name: str,
    claims: Mapping[str, Any],
    issued_at_s: int,
    expires_at_s: int | None = None,
) -> str:
    """A signed JWT.

    Args:
        signer: The operator for accounts, an account or one of its signing keys for users.
        subject: The public key the JWT is about.
        name: What permission templates insert for `{{name()}}`; the caller checks it.
        claims: The `nats` member.
        issued_at_s: Unix time. The server orders account JWTs and judges revocations by it.
        expires_at_s: Unix time; None is never.
    """
    body: dict[str, Any] = {
        "iat": issued_at_s,
        "iss": signer.public,
        "name": name,
        "sub": subject,
        "nats": dict(claims),
    }
    if expires_at_s is not None:
        body["exp"] = expires_at_s
    body["jti"] = base64.b32encode(hashlib.sha256(_json(body)).digest()).rstrip(b"=").decode()
    signed = f"{_base64(_json(_HEADER))}.{_base64(_json(body))}"
    return f"{signed}.{_base64(signer.sign(signed.encode()))}"


def claims_of(jwt: str) -> dict[str, Any]:
    """The claims of a JWT, unverified: for reading one's own, such as `exp` and `name`.

    Raises:
        errors.InvalidParams: It is no JWT.
    """
    try:
        body = jwt.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError) as error:
        raise errors.InvalidParams("cannot read the credentials: there is no JWT in them") from error
    if not isinstance(claims, dict):
        raise errors.InvalidParams("cannot read the credentials: the JWT holds no claims")
    return claims


def creds_text(jwt: str, seed: str) -> str:
    """The content of a creds file: a secret, because of the seed."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


def parse_creds(text: str) -> tuple[str, str]:
    """The JWT and the seed in a creds file.

    Raises:
        errors.InvalidParams: One of them is missing.
    """
    jwt, seed = _JWT_BLOCK.search(text), _SEED_BLOCK.search(text)
    if jwt is None or seed is None:
        raise errors.InvalidParams("cannot read the credentials: a creds file holds a user JWT and a seed")
    return jwt[1], seed[1]


def signature_text(seed: str, nonce: str) -> str:
    """The answer to the server's challenge, as it travels: base64.

    Raises:
        errors.InvalidParams: The seed is none.
    """
    return base64.b64encode(KeyPair(seed).sign(nonce.encode())).decode()


def _new_key(prefix: int) -> KeyPair:
    return KeyPair(nkeys.encode_seed(secrets.token_bytes(_SEED_BYTES), prefix).decode())


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
