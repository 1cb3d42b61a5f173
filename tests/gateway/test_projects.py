"""Projects, their repositories and their variables, as callers see them."""

import json

from tests.gateway import door

BLUEPRINT = {
    "setupSteps": [{"name": "deps", "command": ["make", "deps"], "cwd": "~/src", "timeoutS": 30.0}],
    "probes": [
        {"kind": "exec", "command": ["true"], "cwd": "~", "timeoutS": 2.0},
        {"kind": "rpc", "timeoutS": 1.0},
    ],
}


async def test_a_project_is_kept_as_it_was_made(gateway: door.Door) -> None:
    made = await gateway.call(
        "project.create", name="demo", provider="process", image="v1", blueprint=BLUEPRINT
    )

    assert await gateway.call("project.get", projectId=made["id"]) == made
    assert made["blueprint"] == BLUEPRINT
    assert (made["provider"], made["image"]) == ("process", "v1")


async def test_a_step_without_a_name_is_called_like_its_command(gateway: door.Door) -> None:
    made = await gateway.call(
        "project.create", name="x", blueprint={"setupSteps": [{"command": ["echo", "a b"]}]}
    )

    assert made["blueprint"]["setupSteps"][0]["name"] == "echo 'a b'"


async def test_an_update_changes_what_is_given_and_nothing_else(gateway: door.Door) -> None:
    made = await gateway.call("project.create", name="demo", blueprint=BLUEPRINT)

    changed = await gateway.call("project.update", projectId=made["id"], name="other")

    assert changed == {**made, "name": "other", "updatedAt": changed["updatedAt"]}


async def test_an_unknown_provider_is_refused_with_those_there_are(gateway: door.Door) -> None:
    project = await gateway.project()

    made = await gateway.refused("project.create", name="x", provider="docker")
    changed = await gateway.refused("project.update", projectId=project, provider="docker")

    assert made["data"]["kind"] == changed["data"]["kind"] == "unknown_provider"
    assert made["data"]["providers"] == ["bubblewrap", "process"]


async def test_pages_show_every_project_once_newest_first(gateway: door.Door) -> None:
    made = [await gateway.project(name=f"p{number}") for number in range(5)]
    seen, cursor = [], None
    while True:
        page = await gateway.call("project.list", limit=2, **({"cursor": cursor} if cursor else {}))
        seen += [one["id"] for one in page["projects"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break

    assert len(seen) == 5
    assert set(seen) == set(made)


async def test_a_cursor_that_is_none_of_ours_is_refused(gateway: door.Door) -> None:
    refused = [
        (await gateway.refused("project.list", cursor=cursor))["code"]
        for cursor in ("x", "1", "-1-a", "1-A", "99999999999999999999-a")
    ]

    assert refused == [-32602] * 5


async def test_a_project_with_machines_is_in_use_and_one_without_is_deleted(gateway: door.Door) -> None:
    project = await gateway.project()
    await gateway.call("machine.create", projectId=project)
    other = await gateway.project()

    refused = await gateway.refused("project.delete", projectId=project)
    await gateway.call("project.delete", projectId=other)

    assert refused["data"]["kind"] == "in_use"
    assert (await gateway.refused("project.get", projectId=other))["data"]["kind"] == "not_found"


async def test_a_repository_shows_that_it_has_a_secret_and_not_which(gateway: door.Door) -> None:
    project = await gateway.project()

    private = await gateway.call(
        "repository.add",
        projectId=project,
        url="https://a.b/c",
        path="src/a",
        branch="main",
        secret="hunter2",
    )
    public = await gateway.call("repository.add", projectId=project, url="https://a.b/d", path="src/b")
    listed = await gateway.call("repository.list", projectId=project)

    assert listed["repositories"] == [private, public]
    assert (private["hasSecret"], private["branch"]) == (True, "main")
    assert (public["hasSecret"], public["branch"]) == (False, None)
    assert "hunter2" not in json.dumps([private, listed])


async def test_two_repositories_of_a_project_cannot_have_one_path(gateway: door.Door) -> None:
    project = await gateway.project()
    await gateway.call("repository.add", projectId=project, url="https://a.b/c", path="src")

    refused = await gateway.refused("repository.add", projectId=project, url="https://a.b/d", path="src")

    assert refused["data"]["kind"] == "conflict"


async def test_a_removed_repository_is_gone(gateway: door.Door) -> None:
    project = await gateway.project()
    added = await gateway.call("repository.add", projectId=project, url="https://a.b/c", path="src")

    await gateway.call("repository.remove", repositoryId=added["id"])

    assert (await gateway.call("repository.list", projectId=project))["repositories"] == []
    again = await gateway.refused("repository.remove", repositoryId=added["id"])
    assert again["data"]["kind"] == "not_found"


async def test_variables_are_listed_by_name_and_version_and_never_by_value(gateway: door.Door) -> None:
    project = await gateway.project()
    await gateway.call("env.set", scope="project", projectId=project, variables={"B": "hunter2", "A": "x"})
    await gateway.call("env.set", scope="project", projectId=project, variables={"B": "hunter3"})

    listed = await gateway.call("env.list", scope="project", projectId=project)

    assert [(one["name"], one["version"], one["scope"]) for one in listed["variables"]] == [
        ("A", 1, "project"),
        ("B", 2, "project"),
    ]
    assert "hunter" not in json.dumps(listed)
    assert "value" not in listed["variables"][0]


async def test_a_change_of_variables_reaches_the_machines_of_its_scope(gateway: door.Door) -> None:
    project, other = await gateway.project(), await gateway.project()
    mine = await gateway.call("machine.create", projectId=project)
    theirs = await gateway.call("machine.create", projectId=other)

    by_project = await gateway.call("env.set", scope="project", projectId=project, variables={"A": "1"})
    by_machine = await gateway.call("env.set", scope="machine", machineId=mine["id"], variables={"A": "2"})
    by_platform = await gateway.call("env.set", scope="platform", variables={"A": "3"})

    assert [one["machines"] for one in (by_project, by_machine, by_platform)] == [1, 1, 2]
    wanted = [(await gateway.call("machine.get", machineId=one["id"]))["env"] for one in (mine, theirs)]
    assert wanted == [{"desired": 4, "applied": 0}, {"desired": 2, "applied": 0}]


async def test_unsetting_says_what_was_there(gateway: door.Door) -> None:
    await gateway.call("env.set", scope="platform", variables={"A": "1", "B": "2"})

    removed = await gateway.call("env.unset", scope="platform", names=["A", "C"])

    assert removed == {"names": ["A"], "machines": 0}
    assert [one["name"] for one in (await gateway.call("env.list", scope="platform"))["variables"]] == ["B"]


MISSING: tuple[tuple[str, dict[str, object]], ...] = (
    ("project.get", {"projectId": "p0"}),
    ("project.update", {"projectId": "p0", "name": "x"}),
    ("project.delete", {"projectId": "p0"}),
    ("machine.create", {"projectId": "p0"}),
    ("machine.list", {"projectId": "p0"}),
    ("machine.get", {"machineId": "m0"}),
    ("machine.delete", {"machineId": "m0"}),
    ("machine.retry", {"machineId": "m0"}),
    ("machine.history", {"machineId": "m0"}),
    ("machine.exec", {"machineId": "m0", "command": ["true"]}),
    ("machine.writeFile", {"machineId": "m0", "path": "x", "content": ""}),
    ("machine.readFile", {"machineId": "m0", "path": "x"}),
    ("machine.logs", {"machineId": "m0"}),
    ("env.set", {"scope": "project", "projectId": "p0", "variables": {"A": "1"}}),
    ("env.set", {"scope": "machine", "machineId": "m0", "variables": {"A": "1"}}),
    ("env.unset", {"scope": "project", "projectId": "p0", "names": ["A"]}),
    ("env.list", {"scope": "machine", "machineId": "m0"}),
    ("repository.add", {"projectId": "p0", "url": "https://a.b/c", "path": "x"}),
    ("repository.list", {"projectId": "p0"}),
    ("repository.remove", {"repositoryId": "r0"}),
)


async def test_what_is_not_there_is_not_found(gateway: door.Door) -> None:
    kinds = {method: (await gateway.refused(method, **params))["data"]["kind"] for method, params in MISSING}

    assert set(kinds.values()) == {"not_found"}, kinds
