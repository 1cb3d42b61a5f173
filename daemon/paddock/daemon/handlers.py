"""What the daemon answers, method by method: one table for calls and one for what must overtake them."""

import asyncio
import sys
from collections.abc import Iterable, Mapping

import msgspec

from paddock.bus import clock, responder
from paddock.contracts import daemon, rpc
from paddock.daemon import calls, environment, exec_command, read_file, version, write_file


class Handlers:
    """The methods, with what they need."""

    def __init__(
        self,
        *,
        ledger: calls.Calls,
        surroundings: environment.Environment,
        home: str,
        boot_id: str,
        now: clock.Clock,
        more: Iterable[responder.Handler] = (),
    ) -> None:
        self._calls = ledger
        self._surroundings = surroundings
        self._home = home
        self._boot_id = boot_id
        self._clock = now
        self._more = tuple(more)

    def for_calls(self) -> Mapping[str, responder.Handler]:
        """For `rpc.<S>.call`."""
        return responder.table(
            responder.handler(daemon.EXEC_COMMAND, self.exec_command),
            responder.handler(daemon.WRITE_FILE, self.write_file),
            responder.handler(daemon.READ_FILE, self.read_file),
            responder.handler(daemon.CALL_WAIT, self.wait),
            *self._more,
            *self._quick(),
        )

    def for_control(self, credit: responder.Handler) -> Mapping[str, responder.Handler]:
        """For `rpc.<S>.ctl`; `credit` lets large answers flow."""
        return responder.table(credit, responder.handler(daemon.CALL_CANCEL, self.cancel), *self._quick())

    def _quick(self) -> tuple[responder.Handler, ...]:
        return (
            responder.handler(daemon.PING, self.ping),
            responder.handler(daemon.GET_VERSION, self.get_version),
        )

    async def exec_command(
        self, params: daemon.ExecCommandParams, context: responder.CallContext
    ) -> msgspec.Raw:
        return await self._calls.once(daemon.EXEC_COMMAND, params, context, self._begin_exec)

    async def write_file(self, params: daemon.WriteFileParams, context: responder.CallContext) -> msgspec.Raw:
        return await self._calls.once(daemon.WRITE_FILE, params, context, self._begin_write)

    async def read_file(
        self, params: daemon.ReadFileParams, _context: responder.CallContext
    ) -> daemon.ReadFileResult:
        return await asyncio.to_thread(read_file.read, params, self._home)

    async def wait(self, params: daemon.CallParams, context: responder.CallContext) -> msgspec.Raw:
        return await self._calls.wait(params.call_id, context)

    def cancel(self, params: daemon.CallParams, _context: responder.CallContext) -> daemon.CancelResult:
        return daemon.CancelResult(was_running=self._calls.cancel(params.call_id))

    def ping(self, _params: rpc.Empty, _context: responder.CallContext) -> daemon.PingResult:
        return daemon.PingResult(boot_id=self._boot_id, now_ms=self._clock.now_ms())

    def get_version(self, _params: rpc.Empty, _context: responder.CallContext) -> daemon.VersionResult:
        return daemon.VersionResult(
            version=version.VERSION,
            wire_version=rpc.WIRE_VERSION,
            python=".".join(map(str, sys.version_info[:3])),
        )

    def _begin_exec(self, params: daemon.ExecCommandParams) -> calls.Work[daemon.ExecCommandResult]:
        child = exec_command.start(params, self._surroundings, self._home)
        return calls.Work(
            child.ended, lambda: exec_command.result(child.ended.result()), child, params.timeout_s
        )

    def _begin_write(self, params: daemon.WriteFileParams) -> calls.Work[daemon.WriteFileResult]:
        writing = asyncio.get_running_loop().run_in_executor(None, write_file.write, params, self._home)
        return calls.Work(writing, writing.result)
