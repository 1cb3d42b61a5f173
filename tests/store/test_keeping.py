"""Projects, repositories, tokens, sandboxes and leases keep what they are told, once."""

import asyncio

import pytest

from paddock.contracts import errors, phases
from paddock.store import engine, leases, machines, projects, repositories, sandboxes, secrets, tokens


async def test_a_blueprint_comes_back_as_it_was_given(store: engine.Store) -> None:
    blueprint = projects.Blueprint(
        setup_steps=[projects.SetupStep(name="deps", command=["npm", "ci"], timeout_s=60)],
        probes=[projects.Probe(kind="exec", command=["true"])],
    )
    async with store.write() as tx:
        made = await projects.create(tx, name="a", provider="bubblewrap", blueprint=blueprint)

    async with store.write() as tx:
        renamed = await projects.update(tx, made.id, name="b")

    assert (renamed.name, renamed.provider, renamed.blueprint) == ("b", "bubblewrap", blueprint)


async def test_a_project_with_machines_is_not_deleted(store: engine.Store, project: projects.Project) -> None:
    async with store.write() as tx:
        machine = await machines.create(tx, project=project.id, provider="process")

    with pytest.raises(errors.InUse):
        async with store.write() as tx:
            await projects.delete(tx, project.id)
    async with store.write() as tx:
        for way in (phases.DELETE, phases.DELETED):
            await machines.move(tx, machine.id, way)
        await projects.delete(tx, project.id)

    with pytest.raises(errors.NotFound):
        async with store.read() as tx:
            await projects.get(tx, project.id)


async def test_repositories_keep_their_order_and_one_path_holds_one(
    store: engine.Store, project: projects.Project
) -> None:
    async with store.write() as tx:
        for name in ("b", "a", "c"):
            await repositories.add(
                tx, project=project.id, url=f"https://git.test/{name}", path=f"~/{name}", secret=name
            )
        with pytest.raises(errors.Conflict):
            await repositories.add(tx, project=project.id, url="https://git.test/x", path="~/a")
        public = await repositories.add(
            tx, project=project.id, url="https://git.test/public", path="~/public"
        )
        await repositories.remove(tx, public.id)

    async with store.read() as tx:
        kept = await repositories.listed(tx, project.id)
        secret = await repositories.secret_of(tx, kept[0].id)

    assert [one.path for one in kept] == ["~/b", "~/a", "~/c"]
    assert (secret, kept[0].has_secret, public.has_secret) == ("b", True, False)


async def test_a_token_is_good_until_revoked_and_its_text_is_not_kept(store: engine.Store) -> None:
    async with store.write(actor="host") as tx:
        token, text = await tokens.create(tx, name="ci")
        assert (await tokens.check(tx, text)).id == token.id
        assert text not in repr(await tokens.listed(tx))

        await tokens.revoke(tx, token.id)

        with pytest.raises(errors.Unauthenticated):
            await tokens.check(tx, text)


async def test_what_was_made_with_a_token_ends_with_it(store: engine.Store) -> None:
    async with store.write(actor="host") as tx:
        token, _ = await tokens.create(tx, name="ci")
        old, _ = await tokens.create(tx, name="old", lifetime_s=-1)
        assert (await tokens.standing(tx, token.id)).name == "ci"

        await tokens.revoke(tx, token.id)

        for token_id in (token.id, old.id, "nosuch", ""):
            with pytest.raises(errors.Unauthenticated):
                await tokens.standing(tx, token_id)


@pytest.mark.parametrize(
    "text", ["", "pdk_", "pdk_t1_short", "pdk_t1_" + "a" * 43, "Bearer x", "pdk_t1_" + "é" * 43]
)
async def test_other_texts_are_no_tokens(store: engine.Store, text: str) -> None:
    async with store.read() as tx:
        with pytest.raises(errors.Unauthenticated):
            await tokens.check(tx, text)


async def test_an_expired_token_is_refused(store: engine.Store) -> None:
    async with store.write() as tx:
        _, text = await tokens.create(tx, name="old", lifetime_s=-1)

        with pytest.raises(errors.Unauthenticated):
            await tokens.check(tx, text)


async def test_a_lease_has_one_holder_until_it_passes_or_is_released(
    store: engine.Store, other: engine.Store
) -> None:
    async def take(one: engine.Store, owner: str) -> bool:
        async with one.write() as tx:
            return await leases.acquire(tx, "relay", owner, lease_ms=60_000) is not None

    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(take(store if n % 2 else other, f"o{n}")) for n in range(8)]
    winner = next(f"o{n}" for n, task in enumerate(tries) if task.result())

    assert sum(task.result() for task in tries) == 1
    assert await take(store, winner)
    async with store.write() as tx:
        await leases.release(tx, "relay", winner)
    assert await take(other, "next")


async def test_a_lease_tells_how_long_nobody_was_there(store: engine.Store) -> None:
    async with store.write() as tx:
        await leases.acquire(tx, "limits", "a", lease_ms=-5000)
    async with store.write() as tx:
        tx.now_ms += 9000
        held = await leases.acquire(tx, "limits", "b", lease_ms=1000)

    assert held is not None
    assert 9000 <= held.gap_ms < 12_000


async def test_a_sandbox_keeps_the_first_times_and_is_listed_until_gone(
    store: engine.Store, project: projects.Project
) -> None:
    async with store.write() as tx:
        machine = await machines.create(tx, project=project.id, provider="process")
        await sandboxes.begin(tx, machine.id, 1, node="here")
        first = await sandboxes.made(tx, machine.id, 1, "x", called_at_ms=tx.now_ms - 7)
    async with store.write() as tx:
        tx.now_ms += 1000
        await sandboxes.begin(tx, machine.id, 1, node="here")
        again = await sandboxes.made(tx, machine.id, 1, "x", called_at_ms=tx.now_ms)
        listed = await sandboxes.on_node(tx, "here")
        await sandboxes.gone(tx, machine.id, 1, reason="deleted")
        after = await sandboxes.on_node(tx, "here")

    assert again == first
    assert [one.external_id for one in listed] == ["x"]
    assert after == []


async def test_credentials_are_revoked_once_and_listed_while_they_could_be_used(
    store: engine.Store, project: projects.Project
) -> None:
    async with store.write() as tx:
        machine = await machines.create(tx, project=project.id, provider="process")
        for key, lasts_ms in (("UA", 1000), ("UB", -1)):
            await sandboxes.issued(
                tx, user_key=key, machine=machine.id, generation=1, expires_at_ms=tx.now_ms + lasts_ms
            )
        first = await sandboxes.revoke(tx, machine.id, up_to_generation=1)
        second = await sandboxes.revoke(tx, machine.id, up_to_generation=1)

        assert (sorted(first), second) == (["UA", "UB"], [])
        assert list(await sandboxes.revoked(tx)) == ["UA"]


def test_a_rotated_ring_still_opens_what_the_old_key_sealed() -> None:
    old, new = secrets.new_key(), secrets.new_key()
    sealed = secrets.SecretBox([old]).seal("s3cret")

    assert secrets.SecretBox([new, old]).open(sealed) == "s3cret"
    with pytest.raises(errors.Internal):
        secrets.SecretBox([new]).open(sealed)


@pytest.mark.parametrize("ring", [[], ["short"]])
def test_a_bad_ring_stops_the_start_without_showing_a_key(ring: list[str]) -> None:
    with pytest.raises(errors.InvalidParams) as refused:
        secrets.SecretBox(ring)

    assert "short" not in str(refused.value)


def test_a_ring_is_read_from_lines_and_commas() -> None:
    assert secrets.parse_ring("a, b # newest first\n\n# old\nc\n") == ["a", "b", "c"]
