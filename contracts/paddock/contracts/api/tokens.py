"""Access tokens for the gateway. The text of one is shown once, when it is made; we keep only its hash."""

from typing import Annotated

import pydantic

from paddock.contracts.api import base

TOKEN_MAX_CHARS = 256
TTL_MAX_S = 10 * 365 * 86_400

TokenId = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9]{1,40}$", description="The token's id.")]


class TokenCreate(base.Params):
    """Make an access token."""

    name: base.Label
    ttl_s: Annotated[int | None, pydantic.Field(ge=1, le=TTL_MAX_S, description="For ever unless given.")] = (
        None
    )


class TokenList(base.Params):
    """Every token, without its text."""


class TokenRevoke(base.Params):
    """End a token; it is refused within seconds everywhere."""

    token_id: TokenId


class Token(base.Result):
    """One token."""

    id: TokenId
    name: str
    created_at: base.Moment
    expires_at: base.Moment | None = None
    created_by: Annotated[str, pydantic.Field(description="The token it was made with.")] = ""
    revoked_at: base.Moment | None = None


class NewToken(base.Result):
    """A token and its text, which is shown this once."""

    token: Token
    text: str


class Tokens(base.Result):
    """All tokens."""

    tokens: list[Token]
