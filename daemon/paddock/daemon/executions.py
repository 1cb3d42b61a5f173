"""Commands that run exactly once: started by the keeper, found again by every daemon, and followed by whoever wants to.

What was accepted is never started again, whoever dies: asking with the same id attaches, and what nobody saw is said to be
`unknown` or `lost`. The index takes over at its start what earlier daemons began. For `exec_handlers` and `exec_attach`.
"""

import asyncio
import contextlib
import errno
import functools
import os
import pathlib
from collections.abc import AsyncIterator, Callable, Mapping

from paddock.bus import clock, lifecycle, logs
from paddock.contracts import errors, ids
from paddock.daemon import (
    exec_answer,
    exec_book,
    exec_command,
    exec_record,
    keeper_link,
    keeper_protocol,
    paths,
    processes,
)

COMPACT_S, COMPACT_MIN_S = 3600.0, 1.0
"""Between two looks for what is to be forgotten."""
LOOK_AGAIN_S = 2.0
"""When a keeper that is there could not be asked what it keeps."""
PROMPT_S = 3.0
"""For what a keeper answers at once; one that does not must not keep our own callers from their answers."""
_ATTEMPTS = 2
"""The first may meet a keeper that was about to end because it had nothing to do."""
_NOT_ASKED = (errors.KeeperLost, keeper_link.RefusedError)

log = logs.get(__name__)

Facts = Mapping[str, Mapping[str, object]]
"""What a keeper says of commands, by id; see `list` in `keeper_protocol`."""


class Index:
    """All commands of this machine, and their keeper. `run` it once, beside whoever asks it."""

    def __init__(
        self, home: pathlib.Path, environ: Mapping[str, str], now: clock.Clock, *, kept_s: float
    ) -> None:
        """Make one.

        Args:
            home: `$PADDOCK_HOME`; records are below it, and the keeper's socket.
            environ: For the keeper.
            now: For when commands began and ended.
            kept_s: How long after its end a command is known.
        """
        self.book = exec_book.Book(
            home / keeper_protocol.FOLDER_NAME, now, kept_s=kept_s, on_found=self._on_found
        )
        self.keeper = keeper_link.KeeperLink(
            home, environ, on_grew=self._on_grew, on_ended=self._on_ended, on_lost=self._on_lost
        )
        self._clock = now
        self._compact_s = min(COMPACT_S, max(kept_s, COMPACT_MIN_S))
        self._namespace = processes.namespace()
        self._starting: dict[str, asyncio.Event] = {}
        self._is_found = False
        self._ready = asyncio.Event()
        self._settling = asyncio.Lock()
        self._look = lifecycle.Wakeup()

    async def run(self, stop: asyncio.Event) -> None:
        """Take over what is there, and keep it in order until `stop`. Commands run on."""
        try:
            await self.book.load()
        except OSError as error:
            why = os.strerror(error.errno or 0)
            log.warning("executions_not_read", error=why, hint="their folder cannot be read")
        while not stop.is_set():
            is_settled = await self._settle()
            self._ready.set()
            await self.book.compact()
            await self._look.wait(self._compact_s if is_settled else LOOK_AGAIN_S, stop)
        self._ready.set()
        self.book.release_all()

    async def close(self) -> None:
        """Leave the keeper to itself, when nobody asks any more."""
        await self.keeper.close()

    async def until_ready(self) -> None:
        """Wait until what earlier daemons began has been taken over."""
        await self._ready.wait()

    async def start(
        self, exec_id: str, digest: str, prepare: Callable[[], Mapping[str, object]]
    ) -> exec_record.Record:
        """The command of this id, begun now if it never was.

        Args:
            exec_id: The caller's name for it.
            digest: Of what was asked.
            prepare: Makes what the keeper is asked; called when there is no such command.

        Raises:
            errors.Conflict: The id names another command.
            errors.KeeperLost: It was not accepted; asking again is safe.
            errors.Fault: What `prepare` raised, or why it could not be accepted.

        Cancellation: safe; it may have been accepted.
        """
        exec_id = ids.call_id(exec_id)
        record = await self._known(exec_id)
        if record is None:
            self._starting[exec_id] = starting = asyncio.Event()
            try:
                record = await self._begin({"id": exec_id, "digest": digest, **prepare()})
            finally:
                del self._starting[exec_id]
                starting.set()
        if record.digest != digest:
            raise errors.Conflict(f"cannot start {exec_id}: it names another command", data={"id": exec_id})
        return record

    async def _known(self, exec_id: str) -> exec_record.Record | None:
        """What is known of it, when nobody else is about to start it; nothing is awaited after that was seen."""
        while True:
            while (starting := self._starting.get(exec_id)) is not None:
                await starting.wait()
            record = self.book.find(exec_id)
            if not self._is_found:
                return record
            await self._settle()

    async def facts(self, exec_id: str = "") -> Facts:
        """What the keeper says of one or all that it keeps; nothing when it cannot be asked, or nothing runs."""
        if not (self.book.live(exec_id) if exec_id else self.book.all_live()):
            return {}
        try:
            return await self._list(exec_id)
        except _NOT_ASKED:
            return {}

    @contextlib.asynccontextmanager
    async def following(self, exec_id: str, tell: exec_book.Tell) -> AsyncIterator[exec_book.Live | None]:
        """Inside the block `tell` is called whenever the command wrote or ended, and its output is kept.

        Yields:
            The command; None when it had ended before.
        """
        live = self.book.live(exec_id)
        with self.book.reading(exec_id):
            if live is None:
                yield None
                return
            live.watchers.append(tell)
            try:
                await self._watch(live)
                yield live
            finally:
                live.watchers.remove(tell)
                await self._unwatch(live)

    async def _watch(self, live: exec_book.Live) -> None:
        """Have the keeper tell of it. Each viewer asks, for another one's answer may be lost with that one."""
        if live.is_kept and not live.is_over:
            try:
                live.grow(await self.keeper.ask({"do": "watch", "id": live.record.id}, timeout_s=PROMPT_S))
            except _NOT_ASKED:
                self._look.set()  # what it would have said is found out there, which wakes the watchers

    async def _unwatch(self, live: exec_book.Live) -> None:
        if not live.watchers and live.is_kept and not live.is_over:
            with contextlib.suppress(*_NOT_ASKED):
                await self.keeper.ask({"do": "unwatch", "id": live.record.id}, timeout_s=PROMPT_S)

    async def _begin(self, asked: keeper_protocol.Header) -> exec_record.Record:
        exec_id = str(asked["id"])
        asked |= {"do": "start", "beganAtMs": self._clock.now_ms(), "namespace": self._namespace}
        line: keeper_protocol.Header = {}
        for attempt in range(_ATTEMPTS):
            await self.keeper.start_if_needed()
            try:
                line = {**await self.keeper.ask(asked), "is": "started"}
            except errors.KeeperLost:
                if self.book.find(exec_id) is None and attempt < _ATTEMPTS - 1:
                    continue
                await self._settle()
            except keeper_link.RefusedError as refused:
                _check(refused)
                line = {**refused.error, "is": refused.kind, "endedAtMs": self._clock.now_ms()}
                if refused.kind != "failed":
                    await self._settle()
            break
        record = self.book.find(exec_id)
        if record is None:
            raise errors.KeeperLost(f"cannot start {exec_id}: it was not accepted")
        self._note_on_full_disk(exec_id, line)
        return self.book.record(exec_id)

    def _note_on_full_disk(self, exec_id: str, line: keeper_protocol.Header) -> None:
        """Take in what the keeper said of a start, should it not have been able to write it down."""
        live = self.book.live(exec_id)
        if live is not None and line.get("is") == "failed":
            self.book.end(live, line)
        elif live is not None and line.get("is") == "started" and not live.record.pid:
            live.record.add(line)

    def _on_grew(self, header: Mapping[str, object]) -> None:
        live = self.book.live(str(header["id"]))
        if live is not None:
            live.grow(header)

    def _on_ended(self, header: Mapping[str, object]) -> None:
        exec_id = str(header["id"])
        with contextlib.suppress(errors.Fault):
            self.book.find(exec_id)  # it may have begun and ended before anybody told us
        live = self.book.live(exec_id)
        if live is not None:
            self.book.end(live, header)

    def _on_lost(self) -> None:
        self._look.set()

    def _on_found(self, exec_id: str) -> None:
        if exec_id not in self._starting:
            # An earlier daemon asked for it with its last breath; whether it runs is to be found out.
            self._is_found = True
            self._look.set()

    async def _settle(self) -> bool:
        """Find out about all that live: who keeps them, or how they ended; False when a keeper could not be asked."""
        async with self._settling:
            self._is_found = False
            # What is begun while we ask is not in the answer.
            asked_of = self.book.all_live()
            if not asked_of:
                return True
            try:
                kept = await self._list() if await self.keeper.connect() else {}
            except _NOT_ASKED as error:
                log.warning("keeper_not_asked", reason=str(error))
                return False
            for live in asked_of:
                await self._place(live, kept.get(live.record.id))
            return True

    async def _list(self, exec_id: str = "") -> Facts:
        asked = {"do": "list", "id": exec_id} if exec_id else {"do": "list"}
        found = (await self.keeper.ask(asked, timeout_s=PROMPT_S)).get("executions")
        kept = found if isinstance(found, dict) else {}
        for one, said in kept.items():
            live = self.book.live(one)
            if live is not None:
                live.grow(said)
        return kept

    async def _place(self, live: exec_book.Live, said: Mapping[str, object] | None) -> None:
        """Take in what a keeper says of a command, or that none does."""
        if live.is_over:
            return
        if said is None:
            if live.is_kept:
                live.is_kept = False
                self._take_over(live)
            return
        end = said.get("end")
        if isinstance(end, dict):
            self.book.end(live, end)
            return
        live.is_kept = True
        if live.watchers:
            await self._watch(live)

    def _take_over(self, live: exec_book.Live) -> None:
        """No keeper has it: its record says how it ended, or its process is all that is left, or nobody knows."""
        record = self.book.reread(live)
        lost = functools.partial(self._lose, live)
        if record.is_ended or record.is_failed:
            self.book.end(live)
        elif record.namespace != self._namespace or not _on_end(record, lost):
            lost()
        else:
            self._watch_over(live)

    def _lose(self, live: exec_book.Live) -> None:
        # Its keeper may have been found after all, and knows better.
        if not (live.is_kept or live.is_over):
            self.book.lose(live)

    def _watch_over(self, live: exec_book.Live) -> None:
        """Be to it what its keeper was, as far as a daemon can: what it wrote is to be seen, its time runs out."""
        record = live.record
        stdout, stderr = (
            exec_answer.bounds(self.book.folder, record, stream)[1] for stream in ("stdout", "stderr")
        )
        live.grow({"stdout": stdout, "stderr": stderr})
        if record.timeout_s is not None:
            left_s = max(0.0, record.timeout_s - processes.age_s(record.ticks))
            kill = functools.partial(processes.kill_group, record.pid, record.ticks)
            asyncio.get_running_loop().call_later(left_s, kill)


def _on_end(record: exec_record.Record, tell: exec_book.Tell) -> bool:
    return record.pid > 0 and processes.on_end(record.pid, record.ticks, tell)


def _check(refused: keeper_link.RefusedError) -> None:
    """Raise what the keeper refused to accept; what it accepted its record tells."""
    if refused.kind == "invalid":
        raise exec_command.unusable()
    if refused.kind == "disk":
        number = refused.error.get("errno")
        number = number if isinstance(number, int) else errno.EIO
        raise paths.fault(OSError(number, os.strerror(number)), "keep a record of this command")
