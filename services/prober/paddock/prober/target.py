"""The machine a probe asks: its sandbox, the boot that said ready, and the way there."""

import dataclasses
from typing import Protocol

from paddock.contracts import ids, rpc, subjects


class Calls(Protocol):
    """What is needed of `paddock.bus.caller.Caller`."""

    async def call(
        self,
        subject: str,
        method: rpc.Method[rpc.ParamsT, rpc.ResultT],
        params: rpc.ParamsT,
        *,
        timeout_s: float,
    ) -> rpc.ResultT: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """One sandbox."""

    calls: Calls
    sandbox: ids.SandboxId
    boot: str

    async def call(
        self, method: rpc.Method[rpc.ParamsT, rpc.ResultT], params: rpc.ParamsT, *, timeout_s: float
    ) -> rpc.ResultT:
        """Ask its daemon. Each question is a new one, with a call id of its own where one is needed."""
        return await self.calls.call(subjects.rpc_call(self.sandbox), method, params, timeout_s=timeout_s)
