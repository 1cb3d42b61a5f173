"""`exec.*`: what can be asked about commands that run exactly once."""

import asyncio
import contextlib
import itertools
import os
import pwd
import signal
from collections.abc import Iterator, Mapping

import msgspec

from paddock.bus import channels, clock, handlers
from paddock.contracts import errors, rpc
from paddock.contracts import executions as wire
from paddock.daemon import (
    calls,
    environment,
    exec_answer,
    exec_attach,
    exec_command,
    exec_output,
    executions,
    keeper_link,
    paths,
    processes,
)

MARGIN_S = 0.3
"""An answer leaves so long before its caller's deadline; later it would be of no use."""


class ExecHandlers:
    """The methods, with what they need."""

    def __init__(
        self, index: executions.Index, surroundings: environment.Environment, home: str, now: clock.Clock
    ) -> None:
        self._index = index
        self._book = index.book
        self._surroundings = surroundings
        self._home = home
        self._clock = now

    def table(self) -> tuple[handlers.Handler, ...]:
        """For `rpc.<S>.call`."""
        return (
            handlers.handler(wire.START, self.start),
            handlers.channel(wire.ATTACH, self.attach),
            handlers.handler(wire.WRITE, self.write),
            handlers.handler(wire.RESIZE, self.resize),
            handlers.handler(wire.SIGNAL, self.signal),
            handlers.handler(wire.WAIT, self.wait),
            handlers.handler(wire.LIST, self.list),
            handlers.handler(wire.OUTPUT, self.output),
            handlers.handler(wire.SUMMARY, self.summary),
        )

    async def start(self, params: wire.StartParams, context: handlers.CallContext) -> wire.Execution:
        # Whether its end is waited for makes it no other command.
        asked = calls.digest(wire.START, msgspec.structs.replace(params, background=False))
        await self._index.until_ready()
        record = await self._index.start(params.id, asked, lambda: self._order(params))
        state = exec_answer.state(record)
        if state == "failed":
            raise exec_answer.fault(record)
        if state == "unknown":
            raise errors.OutcomeUnknown(
                f"cannot say whether {params.id} was started, so it is not started again",
                data={"id": params.id},
            )
        if not params.background:
            await self._book.until_over(params.id, self._hold_s(context))
        return await self._now(params.id)

    async def attach(
        self, params: wire.AttachParams, _context: handlers.CallContext
    ) -> channels.Opened[wire.Attached, wire.Execution]:
        await self._index.until_ready()
        with _reading():
            return await exec_attach.attach(self._index, params)

    async def write(self, params: wire.WriteParams, context: handlers.CallContext) -> wire.WriteResult:
        await self._index.until_ready()
        record, data = self._book.record(params.id), context.blob
        doing = f"write to {params.id}"
        if len(data) > wire.STDIN_BYTES_MAX:
            raise errors.PayloadTooLarge(
                f"cannot {doing}: {len(data)} bytes at once, the limit is {wire.STDIN_BYTES_MAX}"
            )
        if not (record.stdin or record.pty):
            raise errors.StdinClosed(f"cannot {doing}: it was started without a standard input")
        end = None if params.offset is None else params.offset + len(data)
        if self._book.live(params.id) is None and end is not None and end <= record.stdin_bytes:
            return wire.WriteResult(accepted=record.stdin_bytes)  # asked again after its answer was lost
        asked = {"do": "write", "id": params.id, "offset": params.offset, "eof": params.eof}
        answer = await self._ask(params.id, doing, asked, data, timeout_s=keeper_link.ANSWER_S)
        accepted = _count(answer, "accepted")
        is_all_taken = accepted >= end if end is not None else params.eof
        if answer.get("closed") and not is_all_taken:
            raise errors.StdinClosed(f"cannot {doing}: nobody reads it any more", data={"accepted": accepted})
        return wire.WriteResult(accepted=accepted)

    async def resize(self, params: wire.ResizeParams, _context: handlers.CallContext) -> rpc.Done:
        await self._index.until_ready()
        doing = f"resize {params.id}"
        if not self._book.record(params.id).pty:
            raise errors.NotATerminal(f"cannot {doing}: it has no terminal")
        asked = {"do": "resize", "id": params.id, "columns": params.columns, "rows": params.rows}
        await self._ask(params.id, doing, asked)
        return rpc.Done()

    async def signal(self, params: wire.SignalParams, _context: handlers.CallContext) -> rpc.Done:
        number = signal_number(params.signal)
        await self._index.until_ready()
        doing = f"send {params.signal} to {params.id}"
        try:
            await self._ask(params.id, doing, {"do": "signal", "id": params.id, "number": number})
        except errors.KeeperLost:
            # Its group is there whoever keeps it.
            record = self._book.record(params.id)
            if not record.pid or not processes.kill_group(record.pid, record.ticks, number):
                raise errors.NotRunning(f"cannot {doing}: it has ended") from None
        return rpc.Done()

    async def wait(self, params: wire.WaitParams, context: handlers.CallContext) -> wire.Execution:
        await self._index.until_ready()
        self._book.record(params.id)
        await self._book.until_over(params.id, min(params.wait_s, self._hold_s(context)))
        return await self._now(params.id)

    async def list(self, params: wire.ListParams, _context: handlers.CallContext) -> wire.ListResult:
        await self._index.until_ready()
        newest = self._book.newest(params.before, is_running=params.running_only)
        asked = list(itertools.islice(newest, params.limit + 1))
        facts = await self._index.facts()
        with _reading():
            return await asyncio.to_thread(exec_output.page, self._book.folder, asked, params.limit, facts)

    async def output(self, params: wire.OutputParams, _context: handlers.CallContext) -> wire.OutputResult:
        await self._index.until_ready()
        record = self._book.record(params.id)
        with _reading():
            return await asyncio.to_thread(exec_output.part, self._book.folder, record, params)

    async def summary(self, params: wire.SummaryParams, _context: handlers.CallContext) -> wire.SummaryResult:
        await self._index.until_ready()
        now = await self._now(params.id)
        record = self._book.record(params.id)
        with _reading():
            return await asyncio.to_thread(
                exec_output.summary, self._book.folder, record, now, params.limit_bytes
            )

    async def _now(self, exec_id: str) -> wire.Execution:
        facts = await self._index.facts(exec_id)
        with _reading():
            return exec_answer.execution(self._book.folder, self._book.record(exec_id), facts.get(exec_id))

    def _order(self, params: wire.StartParams) -> Mapping[str, object]:
        """What the keeper is asked; the environment is that of now."""
        exec_command.check(params.command, params.env)
        return {
            "argv": params.command,
            "env": self._surroundings.now(params.env),
            "cwd": paths.resolve(params.cwd, self._home),
            **_user(params.user),
            "pty": {"columns": params.columns, "rows": params.rows} if params.pty else None,
            "stdin": params.stdin,
            "timeoutS": params.timeout_s,
            "limitBytes": params.output_limit_bytes,
        }

    async def _ask(
        self,
        exec_id: str,
        doing: str,
        asked: Mapping[str, object],
        blob: bytes = b"",
        *,
        timeout_s: float = executions.PROMPT_S,
    ) -> Mapping[str, object]:
        """Ask the keeper about a command that must be running."""
        self._book.record(exec_id)
        live = self._book.live(exec_id)
        if live is None:
            raise errors.NotRunning(f"cannot {doing}: it has ended")
        lost = errors.KeeperLost(f"cannot {doing}: what kept it is gone, and it may still run")
        if not live.is_kept:
            raise lost
        try:
            return await self._index.keeper.ask(asked, blob, timeout_s=timeout_s)
        except errors.KeeperLost as error:
            raise lost from error
        except keeper_link.RefusedError as refused:
            raise (_refusal(refused, doing) or lost) from refused

    def _hold_s(self, context: handlers.CallContext) -> float:
        """How long an answer may be held: as any reply, and so that it comes in time."""
        if not context.deadline_ms:
            return context.held_s
        return min(context.held_s, (context.deadline_ms - self._clock.now_ms()) / 1000 - MARGIN_S)


def signal_number(name: str) -> int:
    """The number of a signal such as SIGTERM or TERM.

    Raises:
        errors.InvalidParams: There is no such.
    """
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise errors.InvalidParams(f"cannot send {name!r}: there is no such signal") from None


def _user(name: str) -> Mapping[str, object]:
    """Whom the command runs as, for the keeper; nulls for itself.

    A number needs no name in the machine: its group is then the one of the same number.
    """
    own = {"uid": None, "gid": None, "groups": None}
    if not name:
        return own
    is_number = name.isascii() and name.isdecimal()
    try:
        found = pwd.getpwuid(int(name)) if is_number else pwd.getpwnam(name)
    except (KeyError, ValueError, OverflowError):
        if not is_number or int(name) >= _NO_UID:
            raise errors.InvalidParams(
                f"cannot run this command as {name!r}: there is no such user"
            ) from None
        return {"uid": int(name), "gid": int(name), "groups": []}
    if found.pw_uid == os.getuid():
        return own
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    return {"uid": found.pw_uid, "gid": found.pw_gid, "groups": groups}


_NO_UID = 2**32 - 1
"""To the kernel it means that nothing is to be changed."""


def _refusal(refused: keeper_link.RefusedError, doing: str) -> errors.Fault | None:
    """The fault for what the keeper will not do; None when it does not know the command."""
    if refused.kind == "not_running":
        return errors.NotRunning(f"cannot {doing}: it has ended")
    if refused.kind == "closed":
        return errors.StdinClosed(f"cannot {doing}: its end was written before, or nobody reads it")
    if refused.kind == "bad_offset":
        size = refused.error.get("sizeBytes")
        return errors.BadOffset(
            f"cannot {doing}: only {size} bytes were written so far", data={"sizeBytes": size}
        )
    if refused.kind == "permission":
        return errors.PermissionDenied(f"cannot {doing}: it runs as another user")
    if refused.kind == "no_terminal":
        return errors.NotATerminal(f"cannot {doing}: it has no terminal")
    return None


def _count(answer: Mapping[str, object], name: str) -> int:
    count = answer.get(name)
    return count if isinstance(count, int) else 0


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise errors.NotFound("cannot read the output: the command is no longer known") from None
    except OSError as error:
        raise paths.fault(error, "read the output") from error
