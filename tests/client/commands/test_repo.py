import json
import pathlib

import pytest

from tests.client.commands import conftest
from tests.support import fake_gateway


@pytest.mark.parametrize("source", ["file", "standard input"])
async def test_a_secret_comes_from_a_file_and_is_not_shown(
    paddock: conftest.Paddock,
    gateway: fake_gateway.FakeGateway,
    project: str,
    tmp_path: pathlib.Path,
    source: str,
) -> None:
    (tmp_path / "secret").write_text("user:hunter2\n")
    path = "secret" if source == "file" else "-"

    added = await paddock(
        *("repo", "add", "https://git.test/a.git", "src/a", "--project", "demo", "--branch", "main"),
        *("--secret-file", path),
        stdin="user:hunter2\n",
    )

    assert added.exit_code == 0, added.stderr
    assert gateway.fleet.secrets == {"r1": "user:hunter2"}
    assert "hunter2" not in added.output
    assert added.stdout.splitlines()[1].split()[:4] == ["r1", "https://git.test/a.git", "main", "src/a"]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://git.test/team/app.git", "app"),
        ("git@git.test:app.git", "app"),
        ("file:///srv/app/", "app"),
    ],
)
async def test_a_clone_goes_where_git_would_put_it(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, project: str, url: str, path: str
) -> None:
    await paddock("repo", "add", url, "--project", project)

    assert [one.path for one in gateway.fleet.repositories.values()] == [path]


async def test_a_repository_is_listed_until_it_is_removed(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, project: str
) -> None:
    await paddock("repo", "add", "file:///a", "--project", project)
    listed = await paddock("repo", "list", env={"PADDOCK_PROJECT": "demo"})
    removed = await paddock("repo", "remove", "r1")
    after = await paddock("repo", "list", "--project", project, "--json")

    assert listed.stdout.splitlines()[1].split()[0] == "r1"
    assert removed.stdout == "removed repository r1\n"
    assert json.loads(after.stdout) == {"repositories": []}


async def test_a_url_with_a_password_is_refused_without_it(paddock: conftest.Paddock, project: str) -> None:
    refused = await paddock("repo", "add", "https://me:hunter2@git.test/a", "--project", project)

    assert refused.exit_code == 78
    assert "give them as the secret" in refused.stderr
    assert "hunter2" not in refused.stderr
