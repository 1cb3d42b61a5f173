"""The demo's repository can be cloned over plain HTTP from wherever the demo was started."""

import os
import pathlib
import subprocess

import pytest

from paddock.local import demo_repository

COMMIT = ("-c", "user.name=a", "-c", "user.email=a@b.invalid", "commit", "--quiet", "--allow-empty", "-m")


def git(*arguments: str, cwd: pathlib.Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, env=environment, check=True, capture_output=True, text=True, timeout=30
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> pathlib.Path:
    """A repository with two commits."""
    path = tmp_path / "checkout"
    path.mkdir()
    git("init", "--quiet", "--initial-branch=main", cwd=path)
    git(*COMMIT, "first", cwd=path)
    git(*COMMIT, "second", cwd=path)
    return path


async def last_commit_of_a_clone(
    start: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """What a machine would find in its clone when the demo is started in `start`."""
    monkeypatch.chdir(start)
    folder = tmp_path / "served"
    folder.mkdir()
    async with demo_repository.served(folder) as (url, _):
        git("clone", "--quiet", "--single-branch", url, "clone", cwd=tmp_path)
    return git("log", "-1", "--format=%s", cwd=tmp_path / "clone")


async def test_a_checkout_is_cloned_with_its_last_commit(
    checkout: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await last_commit_of_a_clone(checkout, tmp_path, monkeypatch) == "second"


async def test_a_worktree_is_cloned_at_its_own_head_even_from_inside_a_hook(
    checkout: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worktree = tmp_path / "worktree"
    git("worktree", "add", "--quiet", "--detach", str(worktree), "HEAD~1", cwd=checkout)
    monkeypatch.setenv("GIT_DIR", str(checkout / ".git"))

    assert await last_commit_of_a_clone(worktree, tmp_path, monkeypatch) == "first"


async def test_without_a_checkout_a_repository_is_made(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))

    assert await last_commit_of_a_clone(nowhere, tmp_path, monkeypatch) == "say what this is"


async def test_a_shallow_checkout_is_not_served_with_commits_missing(
    checkout: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git("clone", "--quiet", "--depth=1", checkout.as_uri(), str(tmp_path / "shallow"), cwd=tmp_path)

    assert await last_commit_of_a_clone(tmp_path / "shallow", tmp_path, monkeypatch) == "say what this is"


async def test_a_checkout_without_commits_gets_a_made_repository(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    git("init", "--quiet", cwd=empty)

    assert await last_commit_of_a_clone(empty, tmp_path, monkeypatch) == "say what this is"
