"""Access tokens: `pdk_<id>_<secret>`, shown once, kept as a hash, checked in constant time."""

import hashlib
import hmac
import re
import secrets

import msgspec
import sqlalchemy as sa

from paddock.contracts import errors, ids
from paddock.store import engine, schema

_t = schema.access_tokens
_FORM = re.compile(r"^pdk_([a-z0-9]{1,40})_([A-Za-z0-9_-]{43})$", re.ASCII)


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What may be shown of one; times are unix milliseconds."""

    id: str
    name: str
    created_at: int
    created_by: str
    expires_at: int | None
    revoked_at: int | None


_COLUMNS = [_t.c[name] for name in Token.__struct_fields__]


async def create(tx: engine.Tx, *, name: str, lifetime_s: float | None = None) -> tuple[Token, str]:
    """A new token and its text, which nobody can show again."""
    token_id = "t" + ids.new_project_id()[1:]
    secret = secrets.token_urlsafe(32)
    row = await tx.execute(
        sa.insert(_t)
        .values(
            id=token_id,
            name=name,
            secret_hash=_hash(secret),
            created_at=tx.now_ms,
            created_by=tx.actor,
            expires_at=None if lifetime_s is None else tx.now_ms + int(lifetime_s * 1000),
        )
        .returning(*_COLUMNS)
    )
    return Token(**row.one()._asdict()), f"pdk_{token_id}_{secret}"


async def check(tx: engine.Tx, text: str) -> Token:
    """The token with this text.

    Raises:
        errors.Unauthenticated: Malformed, unknown, expired or revoked; which one is not told.
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise errors.Unauthenticated
    row = await tx.one(sa.select(_t.c.secret_hash, *_COLUMNS).where(_t.c.id == form[1]))
    # An unknown id costs the same comparison as a known one.
    is_same = hmac.compare_digest(_hash(form[2]), row.secret_hash if row is not None else _hash(""))
    if row is None or not is_same:
        raise errors.Unauthenticated
    return _standing(Token(**{name: getattr(row, name) for name in Token.__struct_fields__}), tx.now_ms)


async def standing(tx: engine.Tx, token_id: str) -> Token:
    """The token of this id, for what was made with it and ends with it.

    Raises:
        errors.Unauthenticated: Unknown, expired or revoked; which one is not told.
    """
    row = await tx.one(sa.select(*_COLUMNS).where(_t.c.id == token_id))
    if row is None:
        raise errors.Unauthenticated
    return _standing(Token(**row._asdict()), tx.now_ms)


async def listed(tx: engine.Tx) -> list[Token]:
    """All, oldest first."""
    return [
        Token(**row._asdict())
        for row in await tx.rows(sa.select(*_COLUMNS).order_by(_t.c.created_at, _t.c.id))
    ]


async def revoke(tx: engine.Tx, token_id: str) -> Token:
    """Make one useless.

    Raises:
        errors.NotFound: There is none.
    """
    row = await tx.one(
        sa.update(_t)
        .where(_t.c.id == token_id)
        .values(revoked_at=sa.func.coalesce(_t.c.revoked_at, tx.now_ms))
        .returning(*_COLUMNS)
    )
    if row is None:
        raise errors.NotFound(f"cannot find token {token_id}")
    return Token(**row._asdict())


def _standing(token: Token, now_ms: int) -> Token:
    if token.revoked_at is not None or (token.expires_at is not None and token.expires_at <= now_ms):
        raise errors.Unauthenticated
    return token


def _hash(secret: str) -> str:
    # 256 random bits need no slow hash; there is nothing to guess.
    return hashlib.sha256(secret.encode()).hexdigest()
