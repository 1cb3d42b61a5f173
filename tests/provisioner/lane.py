"""The provider lane alone: a store, real sandboxes, and gates at which a test can hold a call of the provider."""

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from paddock.bus import clock, lifecycle
from paddock.contracts import errors, ids, phases, rpc, services
from paddock.provisioner import catalogue, stages
from paddock.provisioner.providers import bubblewrap, provider, runtime
from paddock.store import engine, machines, runner
from tests.provisioner import inside


class Gated(bubblewrap.Bubblewrap):
    """The real provider; its `create` waits at a gate after the deed, or fails as often as told."""

    def __init__(self, data: pathlib.Path, daemon: runtime.Runtime) -> None:
        super().__init__(data, daemon)
        self.reached, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.failures = 0
        self.calls: list[str] = []

    async def create(self, spec: provider.SandboxSpec) -> provider.Created:
        self.calls.append(f"create {spec.sandbox_id}")
        if self.failures:
            self.failures -= 1
            raise errors.ProviderFailed("cannot start it: the moon is full")
        made = await super().create(spec)
        self.reached.set()
        await self.gate.wait()
        return made

    async def delete(self, sandbox: ids.SandboxId) -> None:
        self.calls.append(f"delete {sandbox}")
        await super().delete(sandbox)


class Registrar:
    """Issues what looks like a credential."""

    async def call(self, subject: str, method: rpc.Method[Any, Any], params: Any, *, timeout_s: float) -> Any:
        assert (subject, method.name) == ("svc.registrar.call", "credential.issue")
        assert timeout_s > 0
        return services.IssueResult(credentials=inside.SECRET, user_key="U", expires_at_ms=0)


class Lane:
    """One provisioner's provider lane on one node."""

    def __init__(self, store: engine.Store, source: Gated, *, node: str = "here") -> None:
        self.store, self.source = store, source
        self.watched: list[ids.SandboxId] = []
        providers = catalogue.Catalogue([source], offered=frozenset({source.name}))
        provision = stages.ProvisionStage(
            store,
            providers,
            Registrar(),
            node=node,
            actor=f"provisioner-{node}",
            bus_url="nats://127.0.0.1:1",
            wall=clock.SystemClock(),
            made=lambda sandbox, _source: self.watched.append(sandbox),
        )
        destroy = stages.DestroyStage(store, providers, node=node, actor=f"provisioner-{node}")
        self.runner = runner.Runner(
            store,
            owner=f"provisioner-{node}",
            node=node,
            is_pinning=True,
            stages={phases.Stage.PROVISION: provision, phases.Stage.DESTROY: destroy},
            lease_ms=1500,
            sweep_s=0.05,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.runner.run(stop))
            yield
            # Not when the block died: then the group cancels what waits at the gate, and an open one would let it by.
            self.source.gate.set()
            stop.set()

    async def reaches(
        self, machine: machines.Machine, phase: phases.Phase, generation: int = 1
    ) -> machines.Machine:
        return await reaches(self.store, machine, phase, generation)


async def reaches(
    store: engine.Store, machine: machines.Machine, phase: phases.Phase, generation: int = 1
) -> machines.Machine:
    """The machine once it is there."""

    async def is_there() -> bool:
        async with store.read() as tx:
            now = await machines.get(tx, machine.id)
        return now.phase is phase and now.generation >= generation

    await until(is_there)
    async with store.read() as tx:
        return await machines.get(tx, machine.id)


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Return once it is so. A database has no event to wait for, so this looks every 10 ms."""
    never = asyncio.Event()
    async with asyncio.timeout(inside.WAIT_S):
        while not await is_so():
            await lifecycle.pause(0.01, never)
