"""What the provisioner of a host answers about its sandboxes."""

from typing import Final

from paddock.bus import responder
from paddock.contracts import ids, rpc, services
from paddock.provisioner import catalogue

LOG_BYTES_MAX: Final = rpc.REPLY_BYTES_MAX // 2
"""JSON may double a text; an answer here goes in one message."""


class Desk:
    """Answers on `svc.provisioner.<node>.call`."""

    def __init__(self, providers: catalogue.Catalogue) -> None:
        self._providers = providers

    async def log(self, params: services.LogParams, _call: responder.CallContext) -> services.LogResult:
        """The end of a boot log, from the first line on.

        Raises:
            errors.NotFound: There is no such sandbox here.
        """
        sandbox = _sandbox(params.sandbox_id)
        source = await self._providers.holding(sandbox)
        tail_bytes = max(0, min(params.tail_bytes, LOG_BYTES_MAX))
        read = await source.log(sandbox, tail_bytes=tail_bytes)
        return services.LogResult(text=read.text, size_bytes=read.size_bytes)

    async def inspect(
        self, params: services.SandboxParams, _call: responder.CallContext
    ) -> services.InspectResult:
        """How a sandbox is."""
        sandbox = _sandbox(params.sandbox_id)
        seen = await (await self._providers.holding(sandbox)).inspect(sandbox)
        return services.InspectResult(state=seen.state, reason=seen.reason, log_tail=seen.log_tail)

    def handlers(self) -> dict[str, responder.Handler]:
        return responder.table(
            responder.handler(services.SANDBOX_LOG, self.log),
            responder.handler(services.SANDBOX_INSPECT, self.inspect),
        )


def _sandbox(text: str) -> ids.SandboxId:
    ids.split_sandbox(text)
    return ids.SandboxId(text)
