"""A provisioner at work: real bus, database and registrar, sandboxes over the stub daemon or the real one."""

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

from paddock.bus import caller, clock, lifecycle
from paddock.contracts import phases
from paddock.provisioner import catalogue, manager, settings
from paddock.provisioner.providers import records
from paddock.registrar import manager as registrar_manager
from paddock.registrar import settings as registrar_settings
from paddock.store import engine, machines, process, projects, sandboxes
from tests.support import house


class Ground:
    """What a test about the provisioner stands on."""

    def __init__(self, base: house.House, context: process.Context, data: pathlib.Path) -> None:
        self.base, self.context, self.data = base, context, data

    async def create(self, provider: str = "bubblewrap") -> machines.Machine:
        return await make(self.base.store, provider)

    async def reaches(
        self, machine: machines.Machine, phase: phases.Phase, generation: int = 1
    ) -> machines.Machine:
        """The machine once it is there; a failure on the way is shown at once."""

        async def look(tx: engine.Tx) -> machines.Machine:
            return await machines.get(tx, machine.id)

        def is_there(now: machines.Machine) -> bool:
            return now.phase in {phase, phases.Phase.FAILED} and now.generation >= generation

        now: machines.Machine = await self.base.until(look, is_there, 20.0)
        assert now.phase is phase, now.reason
        return now

    async def says(self, machine: machines.Machine, words: str) -> None:
        """Return once these words are in the boot log. A file has no event to wait for."""
        folder = records.Records(self.data).folder(machine.sandbox_id)
        async with asyncio.timeout(20):
            while words.encode() not in folder.log_end(10_000)[0]:
                await lifecycle.pause(0.01, asyncio.Event())

    async def sandboxes(self, machine: machines.Machine) -> list[sandboxes.Sandbox]:
        async with self.base.store.read() as tx:
            return await sandboxes.of_machine(tx, machine.id)

    async def move(self, machine: machines.Machine, way: phases.Move, **more: Any) -> None:
        async with self.base.store.write(actor="test") as tx:
            assert await machines.move(tx, machine.id, way, **more) is not None

    @contextlib.asynccontextmanager
    async def gateway(self) -> AsyncIterator[caller.Caller]:
        """Asks with the gateway's rights."""
        connection = await self.base.bus.service("gateway", pending_size=0)
        async with caller.Caller(connection, caller_id="gateway-test", clock=clock.SystemClock()) as asks:
            yield asks


async def make(store: engine.Store, provider: str = "bubblewrap") -> machines.Machine:
    async with store.write(actor="test") as tx:
        project = await projects.create(tx, name="p", provider=provider)
        return await machines.create(tx, project=project.id, provider=provider)


@contextlib.asynccontextmanager
async def opened(folder: pathlib.Path, runtime_dir: pathlib.Path, **more: Any) -> AsyncIterator[Ground]:
    """Registrar and provisioner, serving; no sandbox outlives the block."""
    data = folder / "data"
    async with house.opened(folder) as base:
        key = folder / "daemon.seed"
        key.write_text(base.nats.realm.sign_daemon.seed)
        registrar = base.settings_for(
            registrar_settings.Settings,
            registrar_daemon_key_file=key,
            registrar_fleet_account=base.nats.realm.fleet.public,
        )
        told = base.settings_for(
            settings.Settings, provisioner_data=data, provisioner_runtime_dir=runtime_dir, **more
        )
        async with base.serving(registrar, registrar_manager.serve):
            try:
                async with base.serving(told, manager.serve) as context:
                    yield Ground(base, context, data)
            finally:
                await _empty(told)


async def _empty(told: settings.Settings) -> None:
    async with catalogue.opened(told, clock.SystemClock()) as providers:
        for one in providers:
            for found in await one.sandboxes():
                await one.delete(found.sandbox_id)
