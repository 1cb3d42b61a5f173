"""When machines were last heard: the row knows the last change of connection, Redis the last heartbeat.

Redis may be forgotten or away; then the row alone has to do, and nobody waits for it.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from paddock.bus import logs
from paddock.contracts import errors, phases
from paddock.store import machines, presence

log = logs.get(__name__)

PATIENCE_S: Final = 0.25


class LastSeen:
    def __init__(self, beats: presence.Presence) -> None:
        self._beats = beats

    async def of(self, rows: Sequence[machines.Machine]) -> dict[str, int]:
        """The last moment each was heard, unix milliseconds, by machine id; without those never heard."""
        heard = await self._heard([row for row in rows if row.phase not in phases.ENDED])
        moments = {row.id: max(row.last_seen_at or 0, heard.get(row.id, 0)) for row in rows}
        return {machine: at for machine, at in moments.items() if at}

    async def _heard(self, rows: Sequence[machines.Machine]) -> dict[str, int]:
        by_sandbox = {row.sandbox_id: row.id for row in rows}
        try:
            async with asyncio.timeout(PATIENCE_S):
                beats = await self._beats.last_beats(by_sandbox)
        except (errors.StoreDown, TimeoutError) as error:
            log.debug("presence_unknown", reason=str(error))
            return {}
        return {by_sandbox[sandbox]: at for sandbox, at in beats.items()}
