"""Calls with a side effect, each done once however often it is asked for.

The first asking begins the call; later ones attach to it, or get its stored answer. What began under a daemon that died
is never begun again: while its process lives we wait for it, and then say `unknown`, because its end was not ours to see.
"""

import asyncio
import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from paddock.bus import children, logs, responder
from paddock.contracts import errors, ids, rpc
from paddock.daemon import journal, processes

ParamsT = TypeVar("ParamsT", bound=msgspec.Struct)
ResultT = TypeVar("ResultT", bound=msgspec.Struct)

log = logs.get(__name__)

_encoder = msgspec.json.Encoder(order="deterministic")


@dataclasses.dataclass(frozen=True, slots=True)
class Work(Generic[ResultT]):
    """Work that has begun: when it is done, what came of it, and the process that does it, with its limit.

    `cancel` is for work without a process: it is asked to stop, and then `done` soon is.
    """

    done: "asyncio.Future[Any]"
    outcome: Callable[[], ResultT]
    child: children.Child | None = None
    timeout_s: float = 0
    cancel: Callable[[], object] | None = None


class _Running:
    """A call under way in this daemon, or under the eyes of it."""

    __slots__ = ("call", "cancel", "child", "settled")

    def __init__(self, call: journal.Call, work: Work[Any] | None = None) -> None:
        self.call = call
        self.child = None if work is None else work.child
        self.cancel = None if work is None else work.cancel
        self.settled: asyncio.Future[msgspec.Raw | errors.Fault] = asyncio.get_running_loop().create_future()
        """The answer, once the journal holds it."""


class Calls:
    """All calls of this daemon that must not happen twice."""

    def __init__(self, book: journal.Journal) -> None:
        self._journal = book
        self._namespace = processes.namespace()
        self._running: dict[str, _Running] = {}

    @property
    def running(self) -> int:
        """How many calls are under way."""
        return len(self._running)

    def adopt(self) -> None:
        """Take over what an earlier daemon left without an end: watch what lives, settle what is gone."""
        for call in self._journal.unended():
            running = _Running(call)
            lost = functools.partial(self._lose, running)
            self._running[call.call_id] = running
            if call.namespace != self._namespace or not processes.on_end(call.pid, call.ticks, lost):
                self._lose(running)
            elif call.timeout_s:
                left_s = max(0.0, call.timeout_s - processes.age_s(call.ticks))
                asyncio.get_running_loop().call_later(left_s, self.cancel, call.call_id)

    async def once(
        self,
        method: rpc.Method[ParamsT, ResultT],
        params: ParamsT,
        context: responder.CallContext,
        begin: Callable[[ParamsT], Work[ResultT]],
    ) -> msgspec.Raw:
        """The answer of the call, begun now if it never was.

        Raises:
            errors.CallConflict: The id was used for another request.
            errors.OutcomeUnknown: It began and its end was lost.
            errors.Fault: It failed; the same fault each time it is asked for.
            responder.StillRunning: It goes on.

        Cancellation: safe; the call goes on.
        """
        call_id = ids.call_id(context.call_id)
        asked = digest(method, params)
        call = self._journal.find(call_id)
        if call is None:
            call = self._journal.begin(call_id, method.name, asked)
            self._start(call, params, begin)
        elif call.digest != asked:
            raise errors.CallConflict(data={"callId": call_id})
        return await self._answer(call, context)

    async def wait(self, call_id: str, context: responder.CallContext) -> msgspec.Raw:
        """The answer of a call that was begun before; raises what `once` does.

        Raises:
            errors.NotFound: No such call is known.
        """
        call = self._journal.find(call_id)
        if call is None:
            raise errors.NotFound("no such call is known in this machine")
        return await self._answer(call, context)

    def cancel(self, call_id: str) -> bool:
        """Kill what is left of a call's process group, or stop it; False when nothing was."""
        running = self._running.get(call_id)
        if running is not None and running.child is not None:
            return running.child.kill()
        if running is not None and running.cancel is not None:
            running.cancel()
            return True
        call = self._journal.find(call_id)
        if call is None or not call.pid or call.namespace != self._namespace:
            return False
        return processes.kill_group(call.pid, call.ticks)

    def kill_all(self) -> None:
        """Kill the process group of every call under way."""
        for call_id in list(self._running):
            self.cancel(call_id)

    def _start(self, call: journal.Call, params: ParamsT, begin: Callable[[ParamsT], Work[ResultT]]) -> None:
        try:
            work = begin(params)
        except errors.Fault as fault:
            self._journal.failed(call, fault)
            return
        if work.child is not None:
            pid = work.child.pid
            ticks = processes.start_ticks(pid)
            limit_s = work.timeout_s
            self._journal.spawned(call, namespace=self._namespace, pid=pid, ticks=ticks, timeout_s=limit_s)
        running = self._running[call.call_id] = _Running(call, work)
        work.done.add_done_callback(lambda _: self._settle(running, work))

    def _settle(self, running: _Running, work: Work[Any]) -> None:
        """Write the end, and only then let whoever waits have it."""
        # What remains when the outcome is a bug's, which the loop logs.
        answer: msgspec.Raw | errors.Fault = errors.OutcomeUnknown()
        try:
            answer = msgspec.Raw(msgspec.json.encode(work.outcome()))
            self._journal.succeeded(running.call, answer)
        except errors.Fault as fault:
            answer = fault
            self._journal.failed(running.call, fault)
        finally:
            self._finish(running, answer)

    def _lose(self, running: _Running) -> None:
        """It has ended, and its end was not ours to see."""
        unknown = errors.OutcomeUnknown()
        self._journal.failed(running.call, unknown)
        self._finish(running, unknown)

    def _finish(self, running: _Running, answer: msgspec.Raw | errors.Fault) -> None:
        del self._running[running.call.call_id]
        running.settled.set_result(answer)

    async def _answer(self, call: journal.Call, context: responder.CallContext) -> msgspec.Raw:
        running = self._running.get(call.call_id)
        if running is None:
            return self._journal.answer(call)
        answer = await context.hold(running.settled, call.call_id)
        if isinstance(answer, errors.Fault):
            raise answer
        return answer


def digest(method: rpc.Method[Any, Any], params: msgspec.Struct) -> str:
    """What tells one request from another: a hash of the method and the parameters, defaults filled in."""
    hashed = hashlib.blake2b(method.name.encode(), digest_size=16)
    hashed.update(_encoder.encode(params))
    return hashed.hexdigest()
