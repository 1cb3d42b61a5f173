"""Bringing a machine's row into a phase without the services that would; used by the prober's tests too."""

from paddock.contracts import ids, phases
from paddock.store import engine, machines, projects, sandboxes, stage_runs
from paddock.store import repositories as stored


async def setting_up(
    store: engine.Store,
    machine: ids.MachineId,
    boot: str,
    blueprint: projects.Blueprint | None = None,
    *,
    repositories: tuple[dict[str, str], ...] = (),
) -> machines.Machine:
    """A project with this blueprint and a machine of it whose daemon has just said ready."""
    async with store.write(actor="test") as tx:
        return await _set_up(tx, machine, boot, blueprint, repositories)


async def probing(
    store: engine.Store, machine: ids.MachineId, boot: str, blueprint: projects.Blueprint | None = None
) -> machines.Machine:
    """As after a setup: pushed, and the environment applied."""
    async with store.write(actor="test") as tx:
        await _set_up(tx, machine, boot, blueprint)
        return await _probe(tx, machine)


async def active(
    store: engine.Store, machine: ids.MachineId, boot: str, blueprint: projects.Blueprint | None = None
) -> machines.Machine:
    """As after a probe that succeeded."""
    # In one transaction: a runner that is there already must not see the phases on the way.
    async with store.write(actor="test") as tx:
        await _set_up(tx, machine, boot, blueprint)
        await _probe(tx, machine)
        await finish_guest_run(tx, machine)
        moved = await machines.move(tx, machine, phases.ACTIVATE)
        assert moved is not None
        return moved


async def _set_up(
    tx: engine.Tx,
    machine: ids.MachineId,
    boot: str,
    blueprint: projects.Blueprint | None,
    repositories: tuple[dict[str, str], ...] = (),
) -> machines.Machine:
    project = await projects.create(tx, name="p", provider="process", blueprint=blueprint)
    for repository in repositories:
        await stored.add(tx, project=project.id, **repository)
    await machines.create(tx, project=project.id, provider="process", machine_id=machine)
    await machines.move(tx, machine, phases.CLAIM)
    await sandboxes.begin(tx, machine, 1, node="here")
    await sandboxes.made(tx, machine, 1, "external")
    await sandboxes.ready(tx, machine, 1, boot=boot, daemon_version="1")
    moved = await machines.move(tx, machine, phases.SET_UP, boot=boot)
    assert moved is not None
    return moved


async def _probe(tx: engine.Tx, machine: ids.MachineId) -> machines.Machine:
    await finish_guest_run(tx, machine)
    await machines.set_env_applied(tx, machine, 1)
    moved = await machines.move(tx, machine, phases.PROBE)
    assert moved is not None
    return moved


async def queue(
    store: engine.Store, machine: ids.MachineId, stage: phases.Stage, *, boot: str = ""
) -> stage_runs.Run | None:
    """Queue a run as the services do: the machine locked before its runs."""
    async with store.write(actor="test") as tx:
        row = await machines.lock(tx, machine)
        assert row is not None
        return await stage_runs.queue(tx, row, stage, boot=boot)


async def finish_guest_run(tx: engine.Tx, machine: ids.MachineId) -> None:
    """End what is queued or under way in the guest lane."""
    # The order every service keeps; the other way round Postgres finds a deadlock with a runner's claim.
    await machines.lock(tx, machine)
    run = await stage_runs.unfinished(tx, machine, phases.Lane.GUEST)
    if run is not None:
        await stage_runs.finish(tx, run, "done")


async def get(store: engine.Store, machine: ids.MachineId) -> machines.Machine:
    async with store.read() as tx:
        return await machines.get(tx, machine)
