"""What a daemon's ready does, by what is known of its machine."""

from paddock.contracts import ids, phases
from paddock.store import machines, process, sandboxes, stage_runs
from tests.registrar.conftest import daemon_of
from tests.support import house


async def _begin(
    ground: house.House, machine: machines.Machine, *ways: phases.Move, external: str = ""
) -> None:
    async with ground.store.write(actor="test") as tx:
        await sandboxes.begin(tx, machine.id, machine.generation, node="here")
        if external:
            await sandboxes.made(tx, machine.id, machine.generation, external)
        for way in ways:
            assert await machines.move(tx, machine.id, way), way.name


async def _now(ground: house.House, machine: machines.Machine) -> machines.Machine:
    async with ground.store.read() as tx:
        return await machines.get(tx, machine.id)


async def _guest(ground: house.House, machine: machines.Machine) -> list[tuple[str, str, str]]:
    async with ground.store.read() as tx:
        runs = await stage_runs.history(tx, machine.id)
    return [(run.stage, run.boot, run.outcome) for run in runs if run.lane is phases.Lane.GUEST]


async def test_ready_of_a_booting_machine_starts_its_setup_and_it_is_online(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    await _begin(ground, machine, phases.CLAIM, phases.BOOT, external="x")

    async with daemon_of(ground, machine.id) as daemon:
        answer = await daemon.ready()

    after = await _now(ground, machine)
    assert answer.answer == "ok"
    assert abs(answer.now_ms - registrar.clock.now_ms()) < 5000
    assert (after.phase, after.connection) == (phases.Phase.SETTING_UP, phases.Connection.ONLINE)
    assert await _guest(ground, machine) == [("setup", "b1", "")]


async def test_ready_before_the_provider_answered_is_recorded_and_moves_nothing(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    await _begin(ground, machine, phases.CLAIM)

    async with daemon_of(ground, machine.id) as daemon:
        answer = await daemon.ready()

    async with ground.store.read() as tx:
        kept = await sandboxes.get(tx, machine.id, 1)
    assert answer.answer == "ok"
    assert kept is not None
    assert kept.ready_boot == "b1"
    assert (await _now(ground, machine)).phase is phases.Phase.PROVISIONING


async def test_ready_said_again_changes_nothing(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    await _begin(ground, machine, phases.CLAIM, phases.BOOT, external="x")

    async with daemon_of(ground, machine.id) as daemon:
        await daemon.ready()
        before = await _now(ground, machine)
        answers = [(await daemon.ready()).answer for _ in range(3)]

    assert answers == ["ok"] * 3
    assert await _now(ground, machine) == before


async def test_a_new_boot_of_an_active_machine_queues_setup_again_and_leaves_it_active(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    await _begin(
        ground, machine, phases.CLAIM, phases.BOOT, phases.SET_UP, phases.PROBE, phases.ACTIVATE, external="x"
    )

    async with daemon_of(ground, machine.id) as daemon:
        await daemon.ready("b2")

    assert (await _now(ground, machine)).phase is phases.Phase.ACTIVE
    assert (await _guest(ground, machine))[-1] == ("setup", "b2", "")


async def test_a_machine_this_store_does_not_know_is_told_to_wait(
    ground: house.House, registrar: process.Context
) -> None:
    async with daemon_of(ground, ids.MachineId("mrestored")) as daemon:
        assert (await daemon.ready()).answer == "wait"


async def test_a_newer_generation_than_known_is_told_to_wait_and_an_older_one_to_stop(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    await _begin(ground, machine, phases.CLAIM, phases.BOOT, external="x")
    async with ground.store.write() as tx:
        await machines.move(tx, machine.id, phases.RECREATE, next_generation=True)

    async with daemon_of(ground, machine.id, 1) as old, daemon_of(ground, machine.id, 3) as newer:
        assert (await old.ready()).answer == "stop"
        assert (await newer.ready()).answer == "wait"


async def test_the_daemon_of_a_deleted_machine_is_told_to_stop(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    await _begin(ground, machine, phases.DELETE)

    async with daemon_of(ground, machine.id) as daemon:
        assert (await daemon.ready()).answer == "stop"


async def test_a_new_boot_while_setting_up_starts_setup_over(
    ground: house.House, registrar: process.Context, machine: machines.Machine
) -> None:
    await _begin(ground, machine, phases.CLAIM, phases.BOOT, external="x")

    async with daemon_of(ground, machine.id) as daemon:
        await daemon.ready("b0")
        await daemon.ready("b1")

    assert await _guest(ground, machine) == [("setup", "b0", "superseded"), ("setup", "b1", "")]
