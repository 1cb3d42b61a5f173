"""The provisioner as a whole, with real sandboxes, really killed."""

import json
import os
import pathlib
import signal
from collections.abc import AsyncIterator

import pytest

from paddock.contracts import errors, ids, phases, services, subjects
from paddock.provisioner.providers import records, runtime
from paddock.store import engine, machines, sandboxes
from tests.provisioner import ground
from tests.support import daemon_runtime

PHASE = phases.Phase


@pytest.fixture
async def here(tmp_path: pathlib.Path, daemon: runtime.Runtime) -> AsyncIterator[ground.Ground]:
    async with ground.opened(tmp_path, daemon.venv) as made:
        yield made


def kill(here: ground.Ground, sandbox: ids.SandboxId) -> None:
    record = records.Records(here.data).folder(sandbox).load()
    assert record is not None
    assert record.process is not None
    os.kill(record.process.pid, signal.SIGKILL)


async def test_a_created_machine_gets_its_sandbox(here: ground.Ground) -> None:
    machine = await here.reaches(await here.create(), PHASE.BOOTING)

    [row] = await here.sandboxes(machine)
    boot = json.loads((here.data / "machines" / machine.id / "home/.paddock/boot.json").read_text())
    assert row.node == "here"
    assert row.external_id is not None
    assert row.called_at is not None
    assert row.external_at is not None
    assert machine.created_at <= row.called_at <= row.external_at
    assert (boot["sandboxId"], boot["busUrl"]) == (machine.sandbox_id, here.base.nats.url)


async def test_the_real_daemon_says_ready_from_a_real_sandbox(tmp_path: pathlib.Path) -> None:
    async with ground.opened(tmp_path, daemon_runtime.venv()) as here:
        machine = await here.reaches(await here.create(), PHASE.SETTING_UP)

        [row] = await here.sandboxes(machine)
        assert row.ready_boot
        assert machine.connection is phases.Connection.ONLINE


async def test_the_boot_log_can_be_read_before_the_machine_is_active(here: ground.Ground) -> None:
    machine = await here.reaches(await here.create(), PHASE.BOOTING)
    await here.says(machine, "supervising")

    async with here.gateway() as asks:
        params = services.LogParams(sandbox_id=machine.sandbox_id)
        log = await asks.call(subjects.provisioner_call("here"), services.SANDBOX_LOG, params, timeout_s=5)
        seen = await asks.call(
            subjects.provisioner_call("here"),
            services.SANDBOX_INSPECT,
            services.SandboxParams(sandbox_id=machine.sandbox_id),
            timeout_s=5,
        )

    assert f"supervise --sandbox {machine.sandbox_id}" in log.text
    assert seen.state == "running"


async def test_what_is_not_here_has_a_clear_answer(here: ground.Ground) -> None:
    await here.reaches(await here.create(), PHASE.BOOTING)
    params = services.LogParams(sandbox_id="m7-1")
    bad = services.SandboxParams(sandbox_id="../../etc")
    missing = services.SandboxParams(sandbox_id="m7-1")
    async with here.gateway() as asks:
        subject = subjects.provisioner_call("here")
        with pytest.raises(errors.NotFound, match="m7-1"):
            await asks.call(subject, services.SANDBOX_LOG, params, timeout_s=5)
        with pytest.raises(errors.InvalidParams, match="sandbox id"):
            await asks.call(subject, services.SANDBOX_INSPECT, bad, timeout_s=5)
        seen = await asks.call(subject, services.SANDBOX_INSPECT, missing, timeout_s=5)

    assert seen.state == "vanished"


async def test_a_killed_sandbox_is_made_anew_in_the_same_home_and_not_for_ever(here: ground.Ground) -> None:
    machine = await here.reaches(await here.create(), PHASE.BOOTING)
    kept = here.data / "machines" / machine.id / "home" / "kept"
    kept.write_text("")
    for generation in (1, 2, 3):
        await here.says(machine, "supervising")
        kill(here, ids.sandbox_id(machine.id, generation))
        machine = await here.reaches(machine, PHASE.BOOTING, generation + 1)
    await here.says(machine, "supervising")
    kill(here, machine.sandbox_id)

    async def look(tx: engine.Tx) -> machines.Machine:
        return await machines.get(tx, machine.id)

    failed = await here.base.until(look, lambda now: now.phase is PHASE.FAILED, 20.0)
    rows = await here.sandboxes(machine)
    assert failed.generation == 4
    assert failed.reason.kind == "sandbox_exited"
    assert "ended by SIGKILL; made anew 3 times within 10 minutes already" in failed.reason.message
    assert "supervise --sandbox" in failed.reason.log_tail
    assert [row.gone_at is None for row in rows] == [False, False, False, True]
    assert kept.exists()


async def test_delete_leaves_nothing(here: ground.Ground) -> None:
    machine = await here.reaches(await here.create(), PHASE.BOOTING)
    record = records.Records(here.data).folder(machine.sandbox_id).load()

    await here.move(machine, phases.DELETE)
    await here.reaches(machine, PHASE.DELETED)

    [row] = await here.sandboxes(machine)
    assert row.gone_at is not None
    assert list((here.data / "sandboxes").iterdir()) == []
    assert list((here.data / "machines").iterdir()) == []
    assert record is not None
    assert record.process is not None
    with pytest.raises(ProcessLookupError):
        os.kill(record.process.pid, 0)


async def test_a_provider_that_is_not_here_fails_the_machine_at_once(here: ground.Ground) -> None:
    for name, words in (("docker", "no provider 'docker' here"), ("process", "--unsafe-process-provider")):
        machine = await here.create(name)

        async def look(tx: engine.Tx, machine: machines.Machine = machine) -> machines.Machine:
            return await machines.get(tx, machine.id)

        failed = await here.base.until(look, lambda now: now.phase is PHASE.FAILED)
        assert failed.reason.kind == "unknown_provider"
        assert words in failed.reason.message


async def test_the_process_provider_works_for_who_asked_for_it(
    tmp_path: pathlib.Path, daemon: runtime.Runtime
) -> None:
    more = {"provisioner_unsafe_process_provider": True}
    async with ground.opened(tmp_path, daemon.venv, **more) as here:
        machine = await here.reaches(await here.create("process"), PHASE.BOOTING)
        await here.move(machine, phases.DELETE)
        await here.reaches(machine, PHASE.DELETED)

        assert list((here.data / "sandboxes").iterdir()) == []


async def test_a_failed_machines_sandbox_goes_after_its_time_and_its_home_stays(here: ground.Ground) -> None:
    machine = await here.reaches(await here.create(), PHASE.BOOTING)
    await here.move(machine, phases.FAIL)
    async with here.base.store.write() as tx:
        await sandboxes.destroy_after(tx, machine.id, 1, delay_ms=-1)

    async def look(tx: engine.Tx) -> sandboxes.Sandbox | None:
        return await sandboxes.get(tx, machine.id, 1)

    row = await here.base.until(look, lambda row: row.gone_at is not None)
    assert row.end_reason == "destroyed"
    assert list((here.data / "sandboxes").iterdir()) == []
    assert (here.data / "machines" / machine.id / "home").exists()


async def test_retry_begins_after_the_old_sandbox_is_gone(here: ground.Ground) -> None:
    machine = await here.reaches(await here.create(), PHASE.BOOTING)
    await here.move(machine, phases.FAIL)

    await here.move(machine, phases.RETRY, next_generation=True)
    machine = await here.reaches(machine, PHASE.BOOTING, 2)

    old, new = await here.sandboxes(machine)
    assert old.gone_at is not None
    assert new.external_id is not None
    assert [path.name for path in (here.data / "sandboxes").iterdir()] == [new.id]
