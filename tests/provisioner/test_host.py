"""What holds for every provider of this host, after any crash."""

import asyncio
import os
import pathlib
import signal

import msgspec
import psutil
import pytest

from paddock.contracts import errors, ids
from paddock.provisioner.providers import bubblewrap, host, procs, records, runtime
from tests.provisioner import inside

M1 = ids.MachineId("m1")
S1 = ids.SandboxId("m1-1")
REST = "echo started; exec sleep 1000"


def edit(made: host.HostProvider, **changed: object) -> None:
    """Change what is on record, as a crash or another boot would have left it."""
    folder = made.records.folder(S1)
    record = folder.load()
    assert record is not None
    folder.save(msgspec.structs.replace(record, **changed))


async def started(made: host.HostProvider, generation: int = 1) -> records.Record:
    """A sandbox whose workload has begun."""
    home = inside.Inside.of(made)
    home.will_run(REST)
    with home.listening() as ear:
        await made.create(inside.spec(generation=generation))
        assert await ear.line() == "started\n"
    record = made.records.folder(inside.spec(generation=generation).sandbox_id).load()
    assert record is not None
    return record


async def test_a_created_sandbox_runs_and_is_listed(any_provider: host.HostProvider) -> None:
    made = await any_provider.create(inside.spec())

    assert made.is_new
    assert (await any_provider.inspect(S1)).state == "running"
    assert [(f.sandbox_id, f.external_id) for f in await any_provider.sandboxes()] == [(S1, made.external_id)]


async def test_creating_twice_is_one_sandbox(any_provider: host.HostProvider) -> None:
    first = await any_provider.create(inside.spec())
    second = await any_provider.create(inside.spec())

    assert (second.external_id, second.is_new) == (first.external_id, False)
    assert len(inside.supervisors(any_provider, S1)) == 1


async def test_creating_at_once_is_one_sandbox(any_provider: host.HostProvider) -> None:
    made = []

    async def create() -> None:
        made.append(await any_provider.create(inside.spec()))

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(create())

    assert len({created.external_id for created in made}) == 1
    assert [created.is_new for created in made].count(True) == 1
    assert len(inside.supervisors(any_provider, S1)) == 1


async def test_one_nobody_came_to_note_is_found_again(any_provider: host.HostProvider) -> None:
    """kill -9 of the provisioner between the spawn and the record."""
    record = await started(any_provider)
    edit(any_provider, process=None)
    any_provider.records.folder(S1).status_file.unlink(missing_ok=True)

    again = await any_provider.create(inside.spec())

    assert (again.external_id, again.is_new) == (record.external_id, False)
    assert len(inside.supervisors(any_provider, S1)) == 1


async def test_one_nobody_came_to_note_is_deleted_too(any_provider: host.HostProvider) -> None:
    await started(any_provider)
    edit(any_provider, process=None)

    await any_provider.delete(S1)

    assert inside.supervisors(any_provider, S1) == []


async def test_a_crash_before_the_spawn_is_made_good(any_provider: host.HostProvider) -> None:
    folder = any_provider.records.make(S1)
    folder.save(any_provider._new_record(S1))

    assert (await any_provider.inspect(S1)).state == "exited"
    assert (await any_provider.create(inside.spec())).is_new


async def test_two_folders_of_data_do_not_see_each_others_sandboxes(
    bwrap: bubblewrap.Bubblewrap, tmp_path: pathlib.Path, daemon: runtime.Runtime
) -> None:
    """Two test runs on one host name their machines alike."""
    await started(bwrap)
    async with inside.emptied(bubblewrap.Bubblewrap(tmp_path / "other", daemon)) as other:
        folder = other.records.make(S1)
        folder.save(other._new_record(S1))

        await other.delete(S1)

    assert (await bwrap.inspect(S1)).state == "running"


async def test_a_sandbox_outlives_who_started_it(
    any_provider: host.HostProvider, tmp_path: pathlib.Path, daemon: runtime.Runtime
) -> None:
    """It is nobody's child that counts: another provisioner over the same folder finds and ends it."""
    record = await started(any_provider)
    successor = type(any_provider)(tmp_path / "data", daemon)

    assert (await successor.create(inside.spec())).external_id == record.external_id
    await successor.delete(S1)
    assert inside.supervisors(any_provider, S1) == []
    successor.close()


async def test_the_next_generation_waits_for_the_end_of_this_one(any_provider: host.HostProvider) -> None:
    await any_provider.create(inside.spec())

    with pytest.raises(errors.Conflict, match="m1-1 of the same machine runs"):
        await any_provider.create(inside.spec(generation=2))
    assert inside.supervisors(any_provider, ids.SandboxId("m1-2")) == []


async def test_the_next_generation_has_the_same_home(any_provider: host.HostProvider) -> None:
    await started(any_provider)
    home = inside.Inside.of(any_provider)
    (home.home / "kept").write_text("by the first")
    await any_provider.delete(S1)

    home.will_run("cat $HOME/kept")
    with home.listening() as ear:
        await any_provider.create(inside.spec(generation=2))
        assert await ear.all() == "by the first"


async def test_delete_ends_everything_in_it(any_provider: host.HostProvider) -> None:
    """Also what forked twice and left its session."""
    home = inside.Inside.of(any_provider)
    mark = f"10{os.getpid()}"
    home.will_run(f"(setsid sh -c 'setsid sleep {mark} & setsid sleep {mark} & echo up' &) ; sleep {mark}")
    with home.listening() as ear:
        await any_provider.create(inside.spec())
        assert await ear.line() == "up\n"

    await any_provider.delete(S1)

    left = [p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", mark]]
    assert left == []
    assert await any_provider.sandboxes() == []


async def test_deleting_what_is_not_there_is_success(any_provider: host.HostProvider) -> None:
    await any_provider.delete(S1)
    await any_provider.delete_home(M1)

    assert await any_provider.sandboxes() == []


async def test_a_home_is_removed_only_after_its_sandboxes(any_provider: host.HostProvider) -> None:
    await started(any_provider)
    home = any_provider.records.home(M1)
    (home / "closed").mkdir()
    (home / "closed" / "file").write_text("")
    (home / "closed").chmod(0)

    with pytest.raises(errors.Conflict, match="m1-1 is still there"):
        await any_provider.delete_home(M1)
    assert home.exists()
    await any_provider.delete(S1)
    await any_provider.delete_home(M1)
    assert not home.parent.exists()


async def test_no_process_list_shows_the_secret(any_provider: host.HostProvider) -> None:
    await started(any_provider)

    shown = [" ".join(procs.command_line(pid) + procs.environment(pid)) for pid in procs.everyone()]

    assert any("supervise --sandbox m1-1" in line for line in shown)
    assert [line for line in shown if inside.SECRET in line] == []
    assert (any_provider.records.home(M1) / ".paddock/bus.creds").read_text() == inside.SECRET
    assert inside.SECRET not in repr(inside.spec())


async def test_a_killed_sandbox_is_noticed_and_says_how_it_ended(any_provider: host.HostProvider) -> None:
    record = await started(any_provider)
    assert record.process is not None
    async with asyncio.timeout(inside.WAIT_S), asyncio.TaskGroup() as group:
        group.create_task(any_provider.ended(S1))
        os.kill(record.process.pid, signal.SIGKILL)

    seen = await any_provider.inspect(S1)

    assert seen.state == "exited"
    assert seen.reason == "it was ended by SIGKILL"
    assert "supervising supervise --sandbox m1-1" in seen.log_tail


async def test_a_sandbox_that_ends_says_why(any_provider: host.HostProvider) -> None:
    (inside.Inside.of(any_provider).home / "end").write_text("out of luck")
    await any_provider.create(inside.spec())
    async with asyncio.timeout(inside.WAIT_S):
        await any_provider.ended(S1)

    seen = await any_provider.inspect(S1)

    assert seen.state == "exited"
    assert seen.reason == "it ended with exit code 7; its supervisor said last: out of luck"
    assert "somebody else's" in seen.log_tail


async def test_after_a_restart_of_the_host_a_sandbox_has_vanished(any_provider: host.HostProvider) -> None:
    """The pid on record may be anybody's now: it is neither believed nor killed."""
    record = await started(any_provider)
    edit(any_provider, host_boot_id="another-boot")

    seen = await any_provider.inspect(S1)

    assert (seen.state, seen.reason) == ("vanished", "the host was restarted")
    assert record.process is not None
    edit(any_provider, host_boot_id=record.host_boot_id)


async def test_a_reused_pid_is_not_the_sandbox(any_provider: host.HostProvider) -> None:
    record = await started(any_provider)
    me = procs.identify(os.getpid())
    assert record.process is not None
    assert me is not None
    edit(any_provider, process=msgspec.structs.replace(me, start_ticks=me.start_ticks - 1), waiter=None)

    assert (await any_provider.inspect(S1)).state == "exited"
    edit(any_provider, process=record.process)


async def test_what_was_never_here_has_vanished(any_provider: host.HostProvider) -> None:
    assert (await any_provider.inspect(ids.SandboxId("m7-3"))).state == "vanished"


async def test_the_boot_log_is_there_while_it_boots_and_after(any_provider: host.HostProvider) -> None:
    record = await started(any_provider)

    log = await any_provider.log(S1, tail_bytes=10_000)

    assert "supervising supervise --sandbox m1-1" in log.text
    assert log.size_bytes == len(log.text)
    assert (await any_provider.log(S1, tail_bytes=4)).text == log.text[-4:]
    with pytest.raises(errors.NotFound, match="m9-1"):
        await any_provider.log(ids.SandboxId("m9-1"), tail_bytes=1)
    assert record.sandbox_id == S1


async def test_a_boot_log_that_outgrew_its_limit_keeps_its_end_and_goes_on(
    any_provider: host.HostProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "LOG_BYTES_MAX", 1000)
    log = any_provider.records.make(S1).log
    log.write_text("x" * 5000 + "\nthe end\n")
    await any_provider.create(inside.spec())
    await inside.says(any_provider, S1, "supervising")

    await any_provider.tidy()

    text = log.read_text()
    assert len(text) < 1000
    assert text.startswith("... ")
    assert "the end\n" in text
    assert "supervising supervise --sandbox m1-1" in text


async def test_a_sandbox_yields_to_the_control_plane(any_provider: host.HostProvider) -> None:
    record = await started(any_provider)
    assert record.process is not None

    assert psutil.Process(record.process.pid).nice() == 5
    assert psutil.Process().nice() == 0


async def test_a_sandbox_that_cannot_start_says_why_and_leaves_nothing(
    bwrap: bubblewrap.Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bwrap.available()
    monkeypatch.setattr(bwrap, "_binary", "/bin/false")

    with pytest.raises(errors.ProviderFailed, match="cannot start sandbox m1-1: bwrap gave up"):
        await bwrap.create(inside.spec())
    assert (await bwrap.inspect(S1)).state == "exited"
    monkeypatch.undo()
    bwrap._binary = ""
    assert (await bwrap.create(inside.spec())).is_new
