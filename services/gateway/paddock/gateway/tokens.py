"""`token.*`: access tokens. The text of one is shown when it is made and never again."""

from paddock.contracts import events
from paddock.contracts.api import base, methods, tokens
from paddock.gateway import auth, jsonrpc, moments
from paddock.store import engine
from paddock.store import tokens as stored


class Tokens:
    def __init__(self, store: engine.Store, authenticator: auth.Authenticator) -> None:
        self._store = store
        self._authenticator = authenticator

    def routes(self) -> tuple[jsonrpc.AnyRoute, ...]:
        return (
            jsonrpc.Route(methods.TOKEN_CREATE, self.create),
            jsonrpc.Route(methods.TOKEN_LIST, self.listed),
            jsonrpc.Route(methods.TOKEN_REVOKE, self.revoke),
        )

    async def create(self, params: tokens.TokenCreate, call: jsonrpc.Call) -> tokens.NewToken:
        async with self._store.write(actor=call.caller.id) as tx:
            made, text = await stored.create(tx, name=params.name, lifetime_s=params.ttl_s)
        return tokens.NewToken(token=_shown(made), text=text)

    async def listed(self, _params: tokens.TokenList, _call: jsonrpc.Call) -> tokens.Tokens:
        async with self._store.read() as tx:
            rows = await stored.listed(tx)
        return tokens.Tokens(tokens=[_shown(row) for row in rows])

    async def revoke(self, params: tokens.TokenRevoke, call: jsonrpc.Call) -> base.Done:
        async with self._store.write(actor=call.caller.id) as tx:
            await stored.revoke(tx, params.token_id)
        self._authenticator.forget()
        return base.Done()


def _shown(row: stored.Token) -> tokens.Token:
    return tokens.Token(
        id=row.id,
        name=row.name,
        created_at=events.time_text(row.created_at),
        created_by=row.created_by,
        expires_at=moments.text(row.expires_at),
        revoked_at=moments.text(row.revoked_at),
    )
