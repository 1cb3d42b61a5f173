"""Who asks: an access token, checked against the store and remembered for seconds.

A revoked or expired token is refused within `KEPT_S` by every gateway. Only good answers are remembered, under a digest,
so a guess always costs a look and no token's text stays in memory.
"""

import asyncio
import dataclasses
import hashlib
from typing import Final

from paddock.contracts import errors
from paddock.store import engine, tokens

KEPT_S: Final = 3.0
KEPT_MAX: Final = 10_000
_SCHEME: Final = "bearer "


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `id` is the token's, and the actor of everything it changes."""

    id: str
    name: str
    is_admin: bool


class Authenticator:
    """Turns an Authorization header into a caller."""

    def __init__(self, store: engine.Store, *, kept_s: float = KEPT_S) -> None:
        self._store = store
        self._kept_s = kept_s
        self._known: dict[bytes, tuple[Caller, float]] = {}

    def known(self, header: str | None) -> Caller | None:
        """Who sent this `Authorization: Bearer …`, if it was looked up lately."""
        known = self._known.get(_digest(header or ""))
        if known is None or known[1] <= asyncio.get_running_loop().time():
            return None
        return known[0]

    async def caller(self, header: str | None) -> Caller:
        """Who sent this header, looked up unless known.

        Raises:
            errors.Unauthenticated: Nobody we know; why is not told.
            errors.StoreDown: Cannot be said now.
        """
        known = self.known(header)
        if known is not None:
            return known
        if header is None or header[: len(_SCHEME)].lower() != _SCHEME:
            raise errors.Unauthenticated
        now = asyncio.get_running_loop().time()
        async with self._store.read() as tx:
            token = await tokens.check(tx, header[len(_SCHEME) :].strip())
            return self._keep(_digest(header), token, tx.now_ms, now)

    async def standing(self, token_id: str) -> Caller:
        """Who has the token of this id, while it is good: for what was let in by it, or made with it.

        Raises:
            errors.Unauthenticated: It is not good any more.
            errors.StoreDown: Cannot be said now.
        """
        # No digest is as short as an id.
        key = token_id.encode()
        known, now = self._known.get(key), asyncio.get_running_loop().time()
        if known is not None and known[1] > now:
            return known[0]
        async with self._store.read() as tx:
            return self._keep(key, await tokens.standing(tx, token_id), tx.now_ms, now)

    def _keep(self, key: bytes, token: tokens.Token, now_ms: int, now_s: float) -> Caller:
        left_s = self._kept_s if token.expires_at is None else (token.expires_at - now_ms) / 1000
        caller = Caller(token.id, token.name, is_admin=True)
        if len(self._known) >= KEPT_MAX:
            self._known.clear()
        self._known[key] = (caller, now_s + min(left_s, self._kept_s))
        return caller

    def forget(self) -> None:
        """Look at every token anew: one was revoked here."""
        self._known.clear()


def _digest(header: str) -> bytes:
    return hashlib.sha256(header.encode(errors="surrogateescape")).digest()
