"""Standard input of a command: bytes of any length, in order, none twice and none lost on the way.

Every piece says its place in all of stdin, so it can be sent again when an answer was lost. One writer: where two write to
the same command, places collide, which is told as a conflict.
"""

import asyncio
import base64
from typing import Final

from paddock.client import patience, transport
from paddock.contracts import errors
from paddock.contracts.api import executions as api
from paddock.contracts.api import methods

PIECE_BYTES: Final = 128 * 1024
TAKES_S = 15.0
"""The machine answers after 10 s at the latest, with what the command has read by then."""
PAUSE_S = 0.05
"""Before offering again what a command did not read; the machine has waited for it already."""


class Stdin:
    """The writer's end. `accepted` is how much the machine has taken, None when that is not known yet."""

    def __init__(self, link: transport.Transport, machine_id: str, exec_id: str) -> None:
        self._link, self._machine_id, self._exec_id = link, machine_id, exec_id
        self.accepted: int | None = None
        self.on_link: patience.OnLink | None = None
        self._under_way = b""
        self._eof_under_way = False
        self._turn = asyncio.Lock()

    async def write(self, data: bytes | bytearray | memoryview, *, eof: bool) -> None:
        """Send all of it; waits as long as the command does not read."""
        async with self._turn:
            # What a cancelled call had sent may have been taken, so it is finished first: it is the same bytes.
            await self._finish()
            whole = memoryview(data).cast("B")
            for begin in range(0, len(whole), PIECE_BYTES):
                self._under_way = bytes(whole[begin : begin + PIECE_BYTES])
                self._eof_under_way = eof and begin + PIECE_BYTES >= len(whole)
                await self._finish()
            if eof and not whole:
                self._eof_under_way = True
                await self._finish()

    async def _finish(self) -> None:
        """Send what is under way until all of it was taken."""
        if not self._under_way and not self._eof_under_way:
            return
        waiting = patience.Patience(has_worked=True, on_link=self.on_link)
        try:
            if self.accepted is None:
                self.accepted = await patience.until_done(waiting, self._ask_accepted)
            while self._under_way or self._eof_under_way:
                await self._offer(waiting)
        except (errors.StdinClosed, errors.NotRunning, errors.NotFound, errors.Conflict, errors.BadOffset):
            # Nobody will ever take it, and where stdin is now is for the machine to say.
            self._under_way, self._eof_under_way, self.accepted = b"", False, None
            raise

    async def _offer(self, waiting: patience.Patience) -> None:
        """Offer it once; the part that was taken is done with."""
        offset = self.accepted or 0
        asked = api.MachineExecWrite(
            machine_id=self._machine_id,
            id=self._exec_id,
            offset=offset,
            content=base64.b64encode(self._under_way).decode("ascii"),
            encoding="base64",
            eof=self._eof_under_way,
        )

        async def ask() -> api.ExecWritten:
            return await self._link.call(methods.MACHINE_EXEC_WRITE, asked, takes_s=TAKES_S, is_named=True)

        taken = (await patience.until_done(waiting, ask)).accepted - offset
        if not 0 <= taken <= len(self._under_way):
            raise errors.Conflict("cannot say what the command was given: somebody else writes to it, too")
        self.accepted = offset + taken
        is_all = taken == len(self._under_way)
        self._under_way = self._under_way[taken:]
        if is_all:
            self._eof_under_way = False
        elif taken == 0:
            await asyncio.sleep(PAUSE_S)

    async def _ask_accepted(self) -> int:
        asked = api.MachineExecWait(machine_id=self._machine_id, id=self._exec_id)
        return (await self._link.call(methods.MACHINE_EXEC_WAIT, asked)).stdin_bytes
