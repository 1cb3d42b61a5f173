import json
import pathlib

import pytest

from tests.client.commands import conftest
from tests.support import fake_gateway


async def test_steps_and_probes_are_given_as_in_a_shell(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway
) -> None:
    made = await paddock(
        *("project", "create", "demo", "--setup", "make deps", "--setup", "sh -c 'echo a > b'"),
        *("--probe", "test -f b", "--provider", "process"),
    )

    assert made.exit_code == 0, made.stderr
    project = gateway.fleet.projects["p1"]
    assert [step.command for step in project.blueprint.setup_steps] == [
        ["make", "deps"],
        ["sh", "-c", "echo a > b"],
    ]
    assert project.blueprint.probes[0].kind == "exec"
    assert project.provider == "process"


@pytest.mark.parametrize("source", ["file", "standard input"])
async def test_a_blueprint_is_read_whole(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, tmp_path: pathlib.Path, source: str
) -> None:
    text = json.dumps({"setupSteps": [{"command": ["make"], "timeoutS": 5}], "probes": [{"kind": "rpc"}]})
    (tmp_path / "blueprint.json").write_text(text)
    path = "blueprint.json" if source == "file" else "-"

    made = await paddock("project", "create", "demo", "--blueprint", path, stdin=text)

    assert made.exit_code == 0, made.stderr
    assert gateway.fleet.projects["p1"].blueprint.setup_steps[0].timeout_s == 5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--blueprint", "none.json"), "cannot read the blueprint none.json: No such file"),
        (("--blueprint", "bad.json"), "cannot use the blueprint bad.json: setupSteps"),
        (("--blueprint", "bad.json", "--setup", "x"), "cannot use --blueprint together with"),
        (("--setup", "sh -c 'x"), 'cannot read the command "sh -c \'x": No closing quotation'),
        (("--setup", ""), "cannot use these parameters: command"),
    ],
)
async def test_a_blueprint_that_cannot_be_used_is_one_sentence(
    paddock: conftest.Paddock, tmp_path: pathlib.Path, arguments: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "bad.json").write_text('{"setupSteps": 3}')

    refused = await paddock("project", "create", "demo", *arguments)

    assert refused.stderr.startswith(f"paddock: {sentence}")
    assert refused.exit_code == 78


async def test_get_and_list_show_projects(paddock: conftest.Paddock, project: str) -> None:
    shown = await paddock("project", "get", "demo")
    listed = await paddock("project", "list")
    as_json = await paddock("project", "list", "--json")

    assert shown.stdout.splitlines()[0].split() == ["id", project]
    assert listed.stdout.splitlines()[1].split()[:2] == [project, "demo"]
    assert [one["id"] for one in json.loads(as_json.stdout)["projects"]] == [project]


async def test_update_changes_what_is_given(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, project: str
) -> None:
    await paddock("project", "update", "demo", "--setup", "make")
    await paddock("project", "update", "demo", "--name", "other")

    changed = gateway.fleet.projects[project]
    assert (changed.name, len(changed.blueprint.setup_steps)) == ("other", 1)


async def test_delete_says_what_is_gone(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, project: str
) -> None:
    deleted = await paddock("project", "delete", "demo")

    assert deleted.stdout == f"deleted project {project} (demo)\n"
    assert gateway.fleet.projects == {}


async def test_delete_of_a_project_with_machines_is_refused(
    paddock: conftest.Paddock, project: str, machine: str
) -> None:
    refused = await paddock("project", "delete", project)

    assert (refused.exit_code, refused.stderr) == (
        73,
        "paddock: cannot delete the project: it has machines\n",
    )
