"""Limits are kept, and no outage fails anybody. Time is the test's: the clock stands still until told."""

import pathlib
import types
from collections.abc import AsyncIterator
from typing import Any

import pytest

from paddock.bus import clock
from paddock.contracts import errors, ids, phases
from paddock.provisioner import catalogue, limits
from paddock.provisioner.providers import runtime
from paddock.store import engine, leases, machines, sandboxes, stage_runs
from tests.provisioner import ground, inside, lane
from tests.support import databases

PHASE = phases.Phase


class Bench:
    """A keeper of limits whose bus, registrar and time a test sets."""

    def __init__(self, store: engine.Store, wall: clock.ManualClock, source: lane.Gated) -> None:
        self.store, self.wall = store, wall
        self.bus = types.SimpleNamespace(is_connected=True)
        self.woken: list[ids.MachineId] = []
        context: Any = types.SimpleNamespace(store=store, owner="keeper", rpc=self.bus)
        providers = catalogue.Catalogue([source], offered=frozenset({source.name}))
        self.keeper = limits.Limits(context, providers, wake=self.woken.append)

    async def passes(self, seconds: float, *, with_registrar: bool = True, with_keeper: bool = True) -> None:
        """Let time pass in which everybody who is there does what they do every two seconds."""
        for _ in range(int(seconds / 2)):
            self.wall.advance(2)
            if with_registrar:
                async with self.store.write() as tx:
                    await leases.acquire(tx, "registrar-alive-one", "one", lease_ms=15_000)
            if with_keeper:
                await self.keeper.look()

    async def booting(self) -> machines.Machine:
        machine = await ground.make(self.store)
        async with self.store.write(actor="test") as tx:
            await sandboxes.begin(tx, machine.id, 1, node="here")
            await machines.move(tx, machine.id, phases.CLAIM)
            await machines.move(tx, machine.id, phases.BOOT)
        return machine

    async def now(self, machine: machines.Machine) -> machines.Machine:
        async with self.store.read() as tx:
            return await machines.get(tx, machine.id)


@pytest.fixture
async def bench(tmp_path: pathlib.Path, daemon: runtime.Runtime) -> AsyncIterator[Bench]:
    wall = clock.ManualClock()
    with databases.database("sqlite", tmp_path) as url:
        async with (
            engine.open_store(url, databases.box(), wall=wall) as store,
            inside.emptied(lane.Gated(tmp_path / "data", daemon)) as source,
        ):
            made = Bench(store, wall, source)
            await made.passes(2)
            yield made


async def test_a_machine_past_its_limit_fails_and_says_what_it_was_doing(bench: Bench) -> None:
    machine = await bench.booting()
    await bench.passes(118)
    assert (await bench.now(machine)).phase is PHASE.BOOTING

    await bench.passes(6)

    failed = await bench.now(machine)
    assert failed.phase is PHASE.FAILED
    assert failed.reason is not None
    assert (failed.reason.stage, failed.reason.kind) == ("booting", "limit_exceeded")
    assert failed.reason.message == (
        "cannot finish booting: its daemon did not say ready: it took longer than 122 s"
    )


async def test_the_reason_carries_the_last_error_and_the_boot_log(
    bench: Bench, daemon: runtime.Runtime, tmp_path: pathlib.Path
) -> None:
    machine = await ground.make(bench.store)
    async with inside.emptied(lane.Gated(tmp_path / "data", daemon)) as source:
        folder = source.records.make(machine.sandbox_id)
        folder.log.write_text("what it said\n")
        fault = stage_runs.Error(kind="provider_failed", message="no room left")
        async with bench.store.write() as tx:
            run = await stage_runs.claim(
                tx, machine.id, frozenset({phases.Stage.PROVISION}), owner="x", node="here"
            )
            assert run is not None
            await stage_runs.try_again(tx, run, after_ms=10**8, error=fault, is_failure=True)
            await machines.shift_limits(tx, -int(phases.CREATED_LIMIT_S * 1000))
        await bench.passes(4)

    failed = await bench.now(machine)
    assert failed.reason is not None
    assert failed.reason.stage == "provision"
    assert failed.reason.message.endswith("; last: no room left")
    assert failed.reason.log_tail == "what it said\n"


async def test_a_failed_machines_sandbox_is_kept_an_hour_and_then_its_end_is_queued(bench: Bench) -> None:
    machine = await bench.booting()
    await bench.passes(130)
    bench.wall.advance(phases.FAILED_KEPT_S - 30)
    await bench.passes(2)
    assert bench.woken == []

    await bench.passes(30)

    async with bench.store.read() as tx:
        run = await stage_runs.unfinished(tx, machine.id, phases.Lane.PROVIDER)
    assert run is not None
    assert run.stage is phases.Stage.DESTROY
    assert set(bench.woken) == {machine.id}


async def test_time_in_which_no_provisioner_ran_is_given_back(bench: Bench) -> None:
    machine = await bench.booting()
    await bench.passes(60)
    await bench.passes(600, with_keeper=False)

    await bench.passes(50)

    assert (await bench.now(machine)).phase is PHASE.BOOTING
    await bench.passes(20)
    assert (await bench.now(machine)).phase is PHASE.FAILED


async def test_time_in_which_the_bus_was_away_is_given_back(bench: Bench) -> None:
    machine = await bench.booting()
    bench.bus.is_connected = False
    await bench.passes(600)
    bench.bus.is_connected = True

    await bench.passes(110)

    assert (await bench.now(machine)).phase is PHASE.BOOTING
    await bench.passes(20)
    assert (await bench.now(machine)).phase is PHASE.FAILED


async def test_without_a_registrar_only_booting_stands_still(bench: Bench) -> None:
    booting = await bench.booting()
    probing = await bench.booting()
    async with bench.store.write(actor="test") as tx:
        await machines.move(tx, probing.id, phases.SET_UP)
        await machines.move(tx, probing.id, phases.PROBE)

    await bench.passes(600, with_registrar=False)

    assert (await bench.now(booting)).phase is PHASE.BOOTING
    assert (await bench.now(probing)).phase is PHASE.FAILED
    await bench.passes(110)
    assert (await bench.now(booting)).phase is PHASE.BOOTING
    await bench.passes(20)
    assert (await bench.now(booting)).phase is PHASE.FAILED


async def test_only_one_of_two_keeps_limits(bench: Bench) -> None:
    async with bench.store.write() as tx:
        await leases.release(tx, limits.LEASE, "keeper")
        await leases.acquire(tx, limits.LEASE, "other", lease_ms=3_600_000)
    machine = await bench.booting()

    await bench.passes(200)

    assert (await bench.now(machine)).phase is PHASE.BOOTING


async def test_a_database_that_is_away_is_borne(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> None:
        raise errors.StoreDown

    monkeypatch.setattr(leases, "acquire", away)
    await bench.keeper.look()
    monkeypatch.undo()

    machine = await bench.booting()
    await bench.passes(130)
    assert (await bench.now(machine)).phase is PHASE.FAILED
