"""Access tokens for the gateway: their text is shown once, when they are made."""

from paddock.client import transport
from paddock.contracts.api import base, methods, tokens


class Tokens:
    def __init__(self, link: transport.Transport) -> None:
        self._link = link

    async def create(self, name: str, *, ttl_s: int | None = None) -> tokens.NewToken:
        """Make a token; `ttl_s` None is for ever."""
        with transport.checked():
            asked = tokens.TokenCreate(name=name, ttl_s=ttl_s)
        return await self._link.call(methods.TOKEN_CREATE, asked)

    async def list(self) -> tokens.Tokens:
        return await self._link.call(methods.TOKEN_LIST, tokens.TokenList())

    async def revoke(self, token_id: str) -> base.Done:
        """End a token."""
        with transport.checked():
            asked = tokens.TokenRevoke(token_id=token_id)
        return await self._link.call(methods.TOKEN_REVOKE, asked)
