import asyncio
import pathlib
import shutil
from collections.abc import Callable

import msgspec
import pytest

from paddock.contracts import daemon, errors
from paddock.setup_pusher import guest, repositories
from tests.setup_pusher import gate, remotes
from tests.setup_pusher import machine as machines
from tests.support import processes

View = Callable[..., guest.Guest]


@pytest.fixture
def origin(tmp_path: pathlib.Path) -> str:
    return f"file://{remotes.bare(tmp_path)}"


def wanted(url: str, **more: str) -> repositories.Repository:
    return repositories.Repository(url=url, **{"path": "~/src/app", **more})


def left_behind(machine: machines.Machine) -> list[str]:
    return [path.name for path in machine.home.rglob("*.partial-*")]


async def test_a_branch_is_cloned_alone_with_the_operands_after_two_dashes(
    machine: machines.Machine, view: View, origin: str
) -> None:
    made = await repositories.clone(view(), wanted(origin, branch="side"))

    clone = machine.home / "src/app"
    assert made
    assert remotes.git("log", "-1", "--format=%s", cwd=clone) == "origin side"
    assert remotes.git("branch", "-a", "--format=%(refname:short)", cwd=clone).split() == [
        "side",
        "origin/side",
    ]
    assert machine.clones() == [
        ["git", "clone", "--branch", "side", "--single-branch", "--", origin, "src/app.partial-1"]
    ]
    assert left_behind(machine) == []


async def test_without_a_branch_the_remotes_own_is_cloned(
    machine: machines.Machine, view: View, origin: str
) -> None:
    await repositories.clone(view(), wanted(origin))

    assert remotes.git("branch", "--show-current", cwd=machine.home / "src/app") == "main"


async def test_an_empty_repository_is_cloned(
    machine: machines.Machine, view: View, tmp_path: pathlib.Path
) -> None:
    remotes.git("init", "-q", "--bare", tmp_path / "empty.git")

    assert await repositories.clone(view(), wanted(f"file://{tmp_path}/empty.git"))
    assert (machine.home / "src/app/.git").is_dir()


async def test_a_branch_that_does_not_exist_fails_with_gits_code_and_words(
    machine: machines.Machine, view: View, origin: str
) -> None:
    with pytest.raises(errors.RepositoryFailed) as failed:
        await repositories.clone(view(), wanted(origin, branch="nope"))

    assert failed.value.data["exitCode"] == 128
    assert "Remote branch nope not found" in failed.value.data["stderrTail"]
    assert "Remote branch nope not found" in failed.value.message
    assert not (machine.home / "src/app").exists()
    assert left_behind(machine) == []


@pytest.mark.parametrize(
    "bad",
    [
        {"url": "ext::sh -c id"},
        {"url": "--upload-pack=id"},
        {"url": "https://user:sesame@example.org/x"},
        {"url": "file:///x", "branch": "--config=x"},
        {"url": "file:///x", "path": "../x"},
        {"url": "file:///x", "path": "~/.paddock/x"},
        {"url": "file:///x", "path": "-x"},
    ],
)
async def test_what_git_would_take_for_something_else_never_reaches_it(
    machine: machines.Machine, view: View, bad: dict[str, str]
) -> None:
    with pytest.raises(errors.InvalidParams) as refused:
        await repositories.clone(view(), wanted(**bad))

    assert (machine.commands, "sesame" in refused.value.message) == ([], False)


async def test_a_protocol_that_is_not_allowed_is_refused_by_git(view: View, origin: str) -> None:
    with pytest.raises(errors.RepositoryFailed, match="transport 'file' not allowed"):
        await repositories.clone(view(), wanted(origin), protocols=("https",))


async def test_a_clone_of_the_wanted_remote_is_left_alone_whatever_its_state(
    machine: machines.Machine, view: View, origin: str
) -> None:
    await repositories.clone(view(), wanted(origin))
    clone = machine.home / "src/app"
    remotes.git("checkout", "-q", "-b", "mine", cwd=clone)
    (clone / "README").write_text("my work\n")
    machine.commands.clear()

    made = await repositories.clone(view(run=2), wanted(origin + "/", branch="side"))

    assert (made, machine.clones()) == (False, [])
    assert (clone / "README").read_text() == "my work\n"


def a_file(path: pathlib.Path, _origin: str) -> None:
    path.write_text("mine")


def a_folder_of_data(path: pathlib.Path, _origin: str) -> None:
    path.mkdir()
    (path / "data").write_text("mine")


def an_empty_folder(path: pathlib.Path, _origin: str) -> None:
    path.mkdir()


def another_repository(path: pathlib.Path, _origin: str) -> None:
    remotes.git("init", "-q", path)
    remotes.git("remote", "add", "origin", "https://example.org/other.git", cwd=path)


def a_folder_inside_a_clone_of_the_same(path: pathlib.Path, origin: str) -> None:
    path.parent.rmdir()
    remotes.git("clone", "-q", origin, path.parent)
    path.mkdir()


def a_link_to_nowhere(path: pathlib.Path, _origin: str) -> None:
    path.symlink_to("nowhere")


def snapshot(folder: pathlib.Path) -> dict[str, str]:
    """Every path below `folder` with its content, or what it points at."""
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = str(path.relative_to(folder))
        if path.is_symlink():
            found[inside] = f"-> {path.readlink()}"
        elif path.is_file():
            found[inside] = path.read_bytes().hex()
        else:
            found[inside] = "/"
    return found


@pytest.mark.parametrize(
    "occupy",
    [
        a_file,
        a_folder_of_data,
        an_empty_folder,
        another_repository,
        a_folder_inside_a_clone_of_the_same,
        a_link_to_nowhere,
    ],
    ids=lambda occupy: occupy.__name__,
)
async def test_a_path_in_use_is_refused_and_nothing_of_the_users_is_touched(
    machine: machines.Machine, view: View, origin: str, occupy: Callable[[pathlib.Path, str], None]
) -> None:
    path = machine.home / "src/app"
    path.parent.mkdir()
    occupy(path, origin)
    before = snapshot(path.parent)

    with pytest.raises(errors.PathInUse) as refused:
        await repositories.clone(view(), wanted(origin))

    after = {name: held for name, held in snapshot(path.parent).items() if ".partial-" not in name}
    assert after == before
    assert refused.value.data["path"] == "~/src/app"


async def test_a_file_where_a_parent_should_be_is_a_path_in_use(
    machine: machines.Machine, view: View, origin: str
) -> None:
    (machine.home / "src").write_text("mine")

    with pytest.raises(errors.PathInUse):
        await repositories.clone(view(), wanted(origin))

    assert (machine.home / "src").read_text() == "mine"


async def test_a_folder_of_the_users_with_a_partials_name_is_not_removed(
    machine: machines.Machine, view: View, origin: str
) -> None:
    theirs = machine.home / "src/app.partial-1/notes"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")

    with pytest.raises(errors.PathInUse, match="not ours"):
        await repositories.clone(view(), wanted(origin))

    assert theirs.read_text() == "mine"


async def test_a_path_taken_during_the_clone_is_not_replaced(
    machine: machines.Machine, view: View, origin: str
) -> None:
    held = gate.hold_clones(machine)

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        cloning = tasks.create_task(expect_path_in_use(view(), origin))
        await held.reached()
        (machine.home / "src/app").mkdir()
        held.open()

    assert cloning.result()
    assert list((machine.home / "src/app").iterdir()) == []


async def expect_path_in_use(machine: guest.Guest, origin: str) -> bool:
    with pytest.raises(errors.PathInUse):
        await repositories.clone(machine, wanted(origin))
    return True


async def test_a_takeover_in_mid_clone_attaches_and_clones_once(
    machine: machines.Machine, view: View, origin: str
) -> None:
    held = gate.hold_clones(machine)

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(repositories.clone(view(), wanted(origin)))
        await held.reached()
        first.cancel()
        second = tasks.create_task(repositories.clone(view(), wanted(origin)))
        clone_id = machine.call_ids[1]
        await processes.until(lambda: machine.asked.count(clone_id) == 2)
        held.open()

    assert second.result()
    assert (len(machine.clones()), machine.ran("rm"), machine.killed) == (1, [], [])
    assert remotes.git("status", "--porcelain", cwd=machine.home / "src/app") == ""


async def test_two_pushers_with_one_run_both_end_well_with_one_clone(
    machine: machines.Machine, view: View, origin: str
) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(repositories.clone(view(), wanted(origin)))

    assert len(machine.clones()) == 1
    assert (machine.home / "src/app/README").exists()


async def test_the_next_run_kills_the_clone_of_the_last_and_removes_its_partial(
    machine: machines.Machine, view: View, origin: str
) -> None:
    held = gate.hold_clones(machine)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(repositories.clone(view(run=1), wanted(origin)))
        await held.reached()
        first.cancel()
    partial = machine.home / "src/app.partial-1/half"
    partial.parent.mkdir()
    partial.touch()
    held.lift()

    await repositories.clone(view(run=2), wanted(origin))

    assert machine.call_ids[1] in machine.killed
    await held.left()
    assert machine.clones()[-1][-1] == "src/app.partial-2"
    assert left_behind(machine) == []


async def test_a_partial_of_a_generation_before_is_removed_although_its_name_is_the_same(
    machine: machines.Machine, view: View, origin: str
) -> None:
    """The sandbox died in mid-clone; the next one has the same HOME and begins at run 1 again."""
    held = gate.hold_clones(machine)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(repositories.clone(view(), wanted(origin)))
        await held.reached()
        first.cancel()
    partial = machine.home / "src/app.partial-1/half"
    partial.parent.mkdir()
    partial.touch()
    held.lift()

    async with machine.booted(generation=2):
        await repositories.clone(view(generation=2), wanted(origin))

    assert (machine.home / "src/app/README").exists()
    assert not (machine.home / "src/app/half").exists()
    assert left_behind(machine) == []


async def test_a_clone_whose_end_was_lost_fails_the_run_and_is_killed(
    machine: machines.Machine, view: View, origin: str
) -> None:
    def forget(params: msgspec.Struct) -> None:
        if isinstance(params, daemon.ExecCommandParams) and "clone" in params.command:
            raise errors.OutcomeUnknown

    machine.stub = forget

    with pytest.raises(errors.OutcomeUnknown):
        await repositories.clone(view(), wanted(origin))
    assert machine.killed == machine.call_ids[-1:]

    machine.stub = lambda _: None
    assert await repositories.clone(view(run=2), wanted(origin))


async def test_a_private_repository_is_cloned_and_its_secret_is_left_nowhere(
    machine: machines.Machine, view: View, tmp_path: pathlib.Path
) -> None:
    remotes.bare(tmp_path)
    helper = machine.home / "helper"
    helper.write_text("#!/bin/sh\ncat >> ~/stolen\n")
    helper.chmod(0o755)
    with remotes.over_http(tmp_path, login="x-access-token:sesame-open-77") as (base, seen):
        # Helpers the user configured would write the login to disk, and the more specific setting would win.
        for scope in ("credential", f"credential.{base}", f"credential.{base}/origin.git"):
            remotes.git("config", "--file", machine.home / ".gitconfig", f"{scope}.helper", f"!{helper}")

        await repositories.clone(view(), wanted(f"{base}/origin.git", secret="sesame-open-77"))

    everything = b"".join(path.read_bytes() for path in machine.home.rglob("*") if path.is_file())
    assert (machine.home / "src/app/README").read_text() == "origin main\n"
    assert any(seen)
    assert "sesame" not in str([params.command for params in machine.commands])
    assert b"sesame" not in everything
    assert not (machine.home / "stolen").exists()


async def test_a_secret_may_name_its_user(
    machine: machines.Machine, view: View, tmp_path: pathlib.Path
) -> None:
    remotes.bare(tmp_path)
    with remotes.over_http(tmp_path, login="bob@corp:pass word") as (base, _):
        await repositories.clone(view(), wanted(f"{base}/origin.git", secret="bob@corp:pass word"))

    assert (machine.home / "src/app/README").exists()


@pytest.mark.parametrize("secret", ["wrong-sesame-1", None])
async def test_a_wrong_or_missing_secret_fails_without_a_prompt_and_without_showing_it(
    view: View, tmp_path: pathlib.Path, secret: str | None
) -> None:
    remotes.bare(tmp_path)
    with remotes.over_http(tmp_path, login="x-access-token:right-sesame-2") as (base, _):
        repository = repositories.Repository(url=f"{base}/origin.git", path="app", secret=secret)

        with pytest.raises(errors.RepositoryFailed) as failed:
            await repositories.clone(view(), repository)

    assert failed.value.data["exitCode"] == 128
    assert "sesame" not in f"{failed.value.message} {failed.value.data} {repository!r}"


async def test_a_redirect_to_another_host_does_not_get_the_secret(view: View, tmp_path: pathlib.Path) -> None:
    remotes.bare(tmp_path)
    with (
        remotes.over_http(tmp_path, login="x-access-token:sesame-open-77") as (elsewhere, seen),
        remotes.over_http(tmp_path, redirect=elsewhere) as (base, _),
        pytest.raises(errors.RepositoryFailed),
    ):
        await repositories.clone(view(), wanted(f"{base}/origin.git", secret="sesame-open-77"))

    assert seen
    assert set(seen) == {""}


async def test_a_secret_changed_between_two_claims_starts_a_new_run(
    machine: machines.Machine, view: View, tmp_path: pathlib.Path
) -> None:
    remotes.bare(tmp_path)
    with remotes.over_http(tmp_path, login="x-access-token:second-secret") as (base, _):
        url = f"{base}/origin.git"
        held = gate.hold_clones(machine)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            first = tasks.create_task(repositories.clone(view(), wanted(url, secret="first-secret")))
            await held.reached()
            first.cancel()
        held.lift()

        with pytest.raises(errors.CallConflict):
            await repositories.clone(view(), wanted(url, secret="second-secret"))
        await held.left()
        assert await repositories.clone(view(run=2), wanted(url, secret="second-secret"))


async def test_what_git_prints_is_shown_without_the_secret(machine: machines.Machine, view: View) -> None:
    chatty = machine.bin / "git"
    chatty.write_text(
        f'#!/bin/sh\ncase "$*" in *clone*) ;; *) exec {shutil.which("git")} "$@";; esac\nenv >&2; exit 3\n'
    )
    chatty.chmod(0o755)

    with pytest.raises(errors.RepositoryFailed) as failed:
        await repositories.clone(view(), wanted("https://example.org/x", secret="bob:sesame/open+77"))

    assert "PADDOCK_GIT_PASSWORD=***" in failed.value.data["stderrTail"]
    assert "sesame" not in str(failed.value.data)
    assert failed.value.data["exitCode"] == 3
