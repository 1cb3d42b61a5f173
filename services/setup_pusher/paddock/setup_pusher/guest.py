"""One machine as setup sees it: files to write and read, and commands that run once.

A command of a setup step is named by generation, step, digest and run. Whoever takes the work over within one run attaches
to the command that is under way or gets the answer it left, so it never runs twice. After a known failure the run is bumped
by the store; the new run first kills what is left of the old one. Commands that only look are named afresh each time.
A machine that is briefly away is waited for: the same name finds the same call.
"""

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Protocol

from paddock.bus import clock
from paddock.contracts import daemon, errors, ids, rpc, subjects

CALL_TIMEOUT_S = 10.0
"""For what takes milliseconds; a late write must not outlive a lost lease (15 s)."""
ANSWER_MARGIN_S = 15.0
"""Above a command's own limit, so that the machine's answer `timed_out` comes before ours."""
LOOK_TIMEOUT_S = 30.0
PATIENCE_S = 20.0
"""How long a machine may be away in the middle of setup before the run is given back, to go on later."""
OUTPUT_BYTES = 64 * 1024
"""Of a step; only its end is shown, and the machine keeps it in its journal for a day."""
FIRST_RUN = 1
_FIRST_PAUSE_S, _PAUSE_FACTOR, _PAUSE_MAX_S = 0.05, 2.0, 2.0

AWAY = (
    errors.MachineOffline, errors.BusDown, errors.NoAnswer, errors.LateCall, errors.DeadlineExceeded,
    errors.ShuttingDown, errors.TooManyInFlight,
)  # fmt: skip
"""Nothing was refused: the call did not begin, or it goes on without us."""


class Calls(Protocol):
    """What is needed of `paddock.bus.caller.Caller`."""

    async def call(
        self,
        subject: str,
        method: rpc.Method[rpc.ParamsT, rpc.ResultT],
        params: rpc.ParamsT,
        *,
        timeout_s: float,
        call_id: str = "",
        traceparent: str = "",
    ) -> rpc.ResultT: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """One command of a step: `step` and `digest` name it, the rest is what runs."""

    step: str
    digest: str
    argv: tuple[str, ...]
    cwd: str = "~"
    env: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    timeout_s: float = daemon.EXEC_TIMEOUT_S


class Guest:
    """One sandbox, in one run of one stage."""

    def __init__(
        self,
        calls: Calls,
        sandbox: ids.SandboxId,
        *,
        run: int,
        wall: clock.Clock,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.sandbox = sandbox
        self.run = run
        self.generation = ids.split_sandbox(sandbox)[1]
        self._calls = calls
        self.clock = wall
        self._patience_s = patience_s

    async def look_at(self, path: str) -> daemon.ReadFileResult | None:
        """Size, mode and digest of a file, without its content; None when there is none."""
        return await self._read(daemon.ReadFileParams(path=path, length=0))

    async def read_file(self, path: str) -> str | None:
        """The text of a small file; None when there is none, or when it is not text."""
        answer = await self._read(daemon.ReadFileParams(path=path))
        return answer.content if answer is not None and answer.encoding == "utf-8" else None

    async def write_file(self, path: str, content: str, *, mode: int) -> daemon.WriteFileResult:
        """Write a whole file. Twice is as good as once, so each write has a name of its own."""
        params = daemon.WriteFileParams(path=path, content=content, mode=mode)
        return await self._call(
            daemon.WRITE_FILE, params, timeout_s=CALL_TIMEOUT_S, call_id=ids.new_ulid(self.clock.now_ms())
        )

    async def look(
        self, *argv: str, cwd: str = "~", env: Mapping[str, str] | None = None
    ) -> daemon.ExecCommandResult:
        """Run a command that changes nothing, or nothing that doing it twice would change again."""
        params = daemon.ExecCommandParams(
            command=list(argv), cwd=cwd, env=dict(env or {}), timeout_s=LOOK_TIMEOUT_S
        )
        name = ids.new_ulid(self.clock.now_ms())
        return await self._call(
            daemon.EXEC_COMMAND, params, timeout_s=LOOK_TIMEOUT_S + ANSWER_MARGIN_S, call_id=name
        )

    async def run_once(self, command: Command) -> daemon.ExecCommandResult:
        """Run a command that must not run twice, or attach to it.

        Raises:
            errors.OutcomeUnknown: It began and its end was lost. What was left of it is killed; only a new run tries again.
            errors.CallConflict: It was begun with other parameters, such as a secret that has changed since. Likewise.
            errors.Fault: The machine refused it, or was away for longer than our patience.

        Cancellation: safe; the command goes on and the next claim attaches to it.
        """
        if self.run > FIRST_RUN:
            await self._kill(self._name(command, self.run - 1))
        params = daemon.ExecCommandParams(
            command=list(command.argv),
            cwd=command.cwd,
            env=dict(command.env),
            timeout_s=command.timeout_s,
            output_limit_bytes=OUTPUT_BYTES,
        )
        name = self._name(command, self.run)
        timeout_s = command.timeout_s + ANSWER_MARGIN_S
        try:
            answer = await self._call(daemon.EXEC_COMMAND, params, timeout_s=timeout_s, call_id=name)
        except (errors.OutcomeUnknown, errors.CallConflict):
            await self._kill(name)
            raise
        if answer.exit_code != 0:
            # It ended, but what it left in its process group has not.
            await self._kill(name)
        return answer

    def _name(self, command: Command, run: int) -> ids.CallId:
        return ids.call_id(f"{self.generation}-{command.step}-{command.digest}-{run}")

    async def _kill(self, call_id: ids.CallId) -> None:
        params = daemon.CallParams(call_id=call_id)
        subject = subjects.rpc_control(self.sandbox)
        await self._call(daemon.CALL_CANCEL, params, timeout_s=CALL_TIMEOUT_S, subject=subject)

    async def _read(self, params: daemon.ReadFileParams) -> daemon.ReadFileResult | None:
        try:
            return await self._call(daemon.READ_FILE, params, timeout_s=CALL_TIMEOUT_S)
        except errors.NoSuchPath:
            return None

    async def _call(
        self,
        method: rpc.Method[rpc.ParamsT, rpc.ResultT],
        params: rpc.ParamsT,
        *,
        timeout_s: float,
        call_id: str = "",
        subject: str = "",
    ) -> rpc.ResultT:
        subject = subject or subjects.rpc_call(self.sandbox)
        away_since: float | None = None
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await self._calls.call(subject, method, params, timeout_s=timeout_s, call_id=call_id)
            except AWAY:
                # Counted from the first failure, not from the question: a clone may have run for minutes before it.
                now = self.clock.monotonic()
                away_since = now if away_since is None else away_since
                if now - away_since >= self._patience_s:
                    raise
            # Nothing announces to a pusher that a machine is back, so there is nothing better to wait for.
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * _PAUSE_FACTOR, _PAUSE_MAX_S)
