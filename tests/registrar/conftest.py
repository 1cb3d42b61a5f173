"""The registrar on a real bus, Redis and database."""

import contextlib
import pathlib
from collections.abc import AsyncIterator

import pytest

from paddock.bus import caller, clock
from paddock.contracts import daemon, ids, rpc, subjects
from paddock.registrar import manager, settings
from paddock.store import machines, process, projects
from tests.support import house


@pytest.fixture
async def ground(tmp_path: pathlib.Path) -> AsyncIterator[house.House]:
    async with house.opened(tmp_path) as opened:
        yield opened


@pytest.fixture
def told(ground: house.House) -> settings.Settings:
    key = ground.folder / "daemon.seed"
    key.write_text(ground.nats.realm.sign_daemon.seed)
    return ground.settings_for(
        settings.Settings,
        registrar_daemon_key_file=key,
        registrar_fleet_account=ground.nats.realm.fleet.public,
        registrar_heartbeat_s=0.5,
    )


@pytest.fixture
async def registrar(ground: house.House, told: settings.Settings) -> AsyncIterator[process.Context]:
    async with ground.serving(told, manager.serve) as context:
        yield context


@pytest.fixture
async def machine(ground: house.House) -> machines.Machine:
    async with ground.store.write(actor="test") as tx:
        project = await projects.create(tx, name="p", provider="process")
        return await machines.create(tx, project=project.id, provider="process")


class Daemon:
    """Reports as a daemon would, with a daemon's rights."""

    def __init__(self, asks: caller.Caller, sandbox: ids.SandboxId) -> None:
        self._asks, self.sandbox = asks, sandbox

    async def ready(self, boot: str = "b1") -> daemon.ReadyResult:
        params = daemon.ReadyParams(
            boot_id=boot, wire_version=rpc.WIRE_VERSION, daemon_version="1", sent_at_ms=0
        )
        return await self._asks.call(subjects.report_call(self.sandbox), daemon.READY, params, timeout_s=5)


@contextlib.asynccontextmanager
async def daemon_of(
    ground: house.House, machine: ids.MachineId, generation: int = 1
) -> AsyncIterator[Daemon]:
    sandbox = ids.sandbox_id(machine, generation)
    connection = await ground.bus.daemon(sandbox, pending_size=0)
    async with caller.Caller(connection, caller_id=sandbox, clock=clock.SystemClock()) as asks:
        yield Daemon(asks, sandbox)
