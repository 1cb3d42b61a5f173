"""Variables: the machine's over the project's over the platform's, versions that say what is applied, values nowhere."""

import sqlalchemy as sa

from paddock.store import engine, env_vars, machines, outbox, projects, schema

Scope = env_vars.Scope


async def _machine(store: engine.Store, project: projects.Project) -> machines.Machine:
    async with store.write() as tx:
        return await machines.create(tx, project=project.id, provider="process")


async def test_a_change_raises_the_desired_version_of_every_machine_it_reaches(
    store: engine.Store, project: projects.Project
) -> None:
    one, two = await _machine(store, project), await _machine(store, project)

    async with store.write(actor="gateway") as tx:
        await env_vars.put(tx, Scope.MACHINE, one.id, {"A": "1"})
        await env_vars.put(tx, Scope.PROJECT, project.id, {"A": "0"})
        await env_vars.put(tx, Scope.PLATFORM, "", {"P": "x"})

    async with store.read() as tx:
        versions = [(await machines.get(tx, machine.id)).env_desired for machine in (one, two)]
    assert versions == [4, 3]


async def test_opened_values_come_by_scope_and_listed_ones_not_at_all(
    store: engine.Store, project: projects.Project
) -> None:
    machine = await _machine(store, project)
    async with store.write(actor="token-1") as tx:
        await env_vars.put(tx, Scope.PROJECT, project.id, {"B": "canary-7", "A": "x"})
        await env_vars.put(tx, Scope.PROJECT, project.id, {"B": "canary-8"})
        await env_vars.put(tx, Scope.MACHINE, machine.id, {"B": "own"})
        await env_vars.put(tx, Scope.MACHINE, "another", {"B": "other"})

    async with store.read() as tx:
        opened = await env_vars.opened(tx, machine)
        listed = await env_vars.listed(tx, Scope.PROJECT, project.id)
        raw = await tx.rows(sa.select(schema.env_vars))
        facts = await outbox.unsent(tx, limit=100)

    assert opened == {
        Scope.PLATFORM: {},
        Scope.PROJECT: {"A": "x", "B": "canary-8"},
        Scope.MACHINE: {"B": "own"},
    }
    assert [(one.name, one.version, one.updated_by) for one in listed] == [
        ("A", 1, "token-1"),
        ("B", 2, "token-1"),
    ]
    assert "canary" not in repr(listed) + repr(raw) + repr(facts)


async def test_unsetting_removes_and_reaches_only_when_something_was_there(
    store: engine.Store, project: projects.Project
) -> None:
    machine = await _machine(store, project)
    async with store.write() as tx:
        await env_vars.put(tx, Scope.PROJECT, project.id, {"A": "1"})

    async with store.write() as tx:
        first = await env_vars.remove(tx, Scope.PROJECT, project.id, ["A", "NONE"])
        second = await env_vars.remove(tx, Scope.PROJECT, project.id, ["A"])

    assert (first[0], [reached.id for reached in first[1]]) == (["A"], [machine.id])
    assert second == ([], [])
