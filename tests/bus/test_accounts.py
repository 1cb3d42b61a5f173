"""The realm, its credentials, and what the wall between its accounts keeps out."""

import asyncio
import contextlib
import json
import pathlib
import stat
from collections.abc import Awaitable, Callable

import nats.errors
import pytest
from nats.aio import msg as nats_msg

from paddock.bus import accounts, clock, credentials, rights, safeclient
from paddock.contracts import errors, ids, subjects
from tests.support import connections, nats_server

FIRST, SECOND = ids.SandboxId("m1-1"), ids.SandboxId("m1-2")


async def answer_everything(client: safeclient.SafeClient, subject: str, body: bytes = b"") -> None:
    """Answer as the most careless service would: at once, to whatever reply subject is given."""

    async def answer(message: nats_msg.Msg) -> None:
        await client.publish(message.reply, body)

    await client.subscribe(subject, queue=subjects.DAEMON_QUEUE, cb=answer)
    await client.flush()


async def is_let_in(server: nats_server.NatsServer, creds: str | None) -> bool:
    """One handshake and the server's verdict: clients of ours would go on trying."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        nonce = json.loads((await reader.readline()).removeprefix(b"INFO "))["nonce"]
        login: dict[str, object] = {"verbose": False, "protocol": 1}
        if creds is not None:
            jwt, seed = credentials.parse_creds(creds)
            login |= {"jwt": jwt, "sig": credentials.signature_text(seed, nonce)}
        writer.write(b"CONNECT " + json.dumps(login).encode() + b"\r\nPING\r\n")
        return await reader.readline() == b"PONG\r\n"
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


# -- what is kept


def test_a_realm_is_the_same_after_it_was_saved_and_loaded(tmp_path: pathlib.Path) -> None:
    realm = accounts.Realm.create()
    realm.save(tmp_path / "realm.json")

    again = accounts.Realm.load(tmp_path / "realm.json")

    assert again.server_config(tmp_path) == realm.server_config(tmp_path)
    assert again.sign_daemon.seed == realm.sign_daemon.seed


def test_a_realm_keeps_its_seeds_to_itself(tmp_path: pathlib.Path) -> None:
    realm = accounts.Realm.create()
    realm.save(tmp_path / "realm.json")

    assert stat.S_IMODE((tmp_path / "realm.json").stat().st_mode) == 0o600
    assert realm.operator.seed not in repr(realm)
    assert realm.operator.seed not in realm.server_config(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"operator": "SO"}'])
def test_a_file_that_is_no_realm_is_refused(tmp_path: pathlib.Path, content: str) -> None:
    (tmp_path / "realm.json").write_text(content)

    with pytest.raises(errors.InvalidParams, match=r"realm\.json"):
        accounts.Realm.load(tmp_path / "realm.json")


def test_an_issued_credential_names_its_sandbox_its_end_and_what_to_revoke() -> None:
    realm, now = accounts.Realm.create(), clock.ManualClock()

    issued = accounts.daemon_creds(realm.sign_daemon.seed, realm.fleet.public, FIRST, ttl_s=3600, time=now)

    claims = credentials.claims_of(credentials.parse_creds(issued.text)[0])
    assert (claims["name"], claims["sub"]) == (FIRST, issued.user_key)
    assert claims["exp"] * 1000 == issued.expires_at_ms
    assert claims["exp"] - claims["iat"] == 3600
    assert issued.text not in repr(issued)


@pytest.mark.parametrize(
    "name", ["*", ">", "m1", "*-1", "m1-*", "m1-0", "m1.x-1", "M1-1", "m1-1\n", "", "{{name()}}"]
)
def test_a_name_that_would_widen_the_rights_is_refused_at_birth(name: str) -> None:
    realm = accounts.Realm.create()

    with pytest.raises(errors.InvalidParams):
        accounts.daemon_creds(realm.sign_daemon.seed, realm.fleet.public, name, ttl_s=60)


@pytest.mark.parametrize("project", ["*", ">", "p1.>", "", "P1"])
def test_a_monitor_of_more_than_one_project_is_refused_at_birth(project: str) -> None:
    with pytest.raises(errors.InvalidParams):
        accounts.Realm.create().monitor_creds(ids.ProjectId(project))


# -- who is let in


async def test_only_what_our_own_keys_signed_is_let_in(server: nats_server.NatsServer) -> None:
    realm, foreign = server.realm, credentials.new_account_key()
    user = credentials.new_user_key()

    def signed(signer: credentials.KeyPair, **claims: object) -> str:
        nats_claims = {"type": "user", "version": 2, "issuer_account": realm.fleet.public, **claims}
        jwt = credentials.mint(
            signer, subject=user.public, name=FIRST, claims=nats_claims, issued_at_s=1_700_000_000
        )
        return credentials.creds_text(jwt, user.seed)

    everything = {"pub": {"allow": [">"]}, "sub": {"allow": [">"]}}
    mine = server.daemon_creds(FIRST)
    stolen_jwt = credentials.creds_text(credentials.parse_creds(mine.text)[0], user.seed)

    assert await is_let_in(server, mine.text)
    assert not await is_let_in(server, None)
    assert not await is_let_in(server, signed(foreign, pub={}, sub={}))
    assert not await is_let_in(server, stolen_jwt)
    # A scoped key gives its role's rights: what brings others of its own is void.
    assert not await is_let_in(server, signed(realm.sign_daemon, **rights.UNLIMITED, **everything))


async def test_a_credential_that_states_no_rights_has_none(
    server: nats_server.NatsServer, bus: connections.Connections
) -> None:
    realm, user = server.realm, credentials.new_user_key()
    for signer, account in ((realm.fleet, realm.fleet), (realm.sign_services, realm.app)):
        claims = {"type": "user", "version": 2, "issuer_account": account.public, **rights.UNLIMITED}
        jwt = credentials.mint(
            signer, subject=user.public, name="bare", claims=claims, issued_at_s=1_700_000_000
        )
        client = await bus.connect("bare", credentials.creds_text(jwt, user.seed))

        bus.refusals.clear()
        await client.publish("rpc.m1-1.call")
        await client.subscribe("report.*.call")
        await bus.refused("rpc.m1-1.call")
        await bus.refused("report.*.call")

    assert len(bus.refusals) == 2


# -- calls across the wall


async def test_an_old_generation_gets_no_call_meant_for_the_new_one(bus: connections.Connections) -> None:
    old, prober = await bus.daemon(FIRST), await bus.service("prober")
    await answer_everything(old, subjects.rpc_call(FIRST), b"old")
    await old.subscribe(subjects.rpc_call(SECOND))
    await bus.refused(subjects.rpc_call(SECOND))

    with pytest.raises(nats.errors.NoRespondersError):
        await prober.request(subjects.rpc_call(SECOND), timeout=5)

    assert (await prober.request(subjects.rpc_call(FIRST), timeout=5)).data == b"old"


async def test_of_two_daemons_with_one_name_one_gets_the_call(bus: connections.Connections) -> None:
    first, clone, prober = await bus.daemon(FIRST), await bus.daemon(FIRST), await bus.service("prober")
    await answer_everything(first, subjects.rpc_call(FIRST))
    await answer_everything(clone, subjects.rpc_call(FIRST))

    for _ in range(20):
        await prober.request(subjects.rpc_call(FIRST), timeout=5)
    await first.flush()
    await clone.flush()

    assert first.stats["in_msgs"] + clone.stats["in_msgs"] == 20


@pytest.mark.parametrize("reply", ["machine.created.p1.m1", "$JS.API.STREAM.DELETE.EVENTS", "rpc.m2-1.call"])
async def test_a_reply_subject_a_daemon_invents_reaches_nothing(
    ready_bus: connections.Connections, reply: str
) -> None:
    """In one account the answer of a trusted service would land there, with the service's rights."""
    daemon, looker = await ready_bus.daemon(FIRST), await ready_bus.onlooker()
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def answer(message: nats_msg.Msg) -> None:
        await looker.publish(message.reply)
        await looker.flush()
        await heard.put(message.reply)

    await looker.subscribe(subjects.REPORT_CALLS, cb=answer)
    stray = await looker.subscribe("rpc.>")
    await looker.flush()
    await daemon.publish(subjects.report_call(FIRST), reply=reply)

    async with asyncio.timeout(5):
        seen = await heard.get()
    assert seen.startswith("_R_.")
    assert (await looker.jetstream().stream_info(subjects.EVENTS_STREAM)).state.messages == 0
    assert stray.pending_msgs == 0


async def test_chunks_reach_the_caller_they_name(bus: connections.Connections) -> None:
    daemon, gateway = await bus.daemon(FIRST), await bus.service("gateway")
    mine = await gateway.subscribe(subjects.out_for("gateway-a"))
    await gateway.flush()

    await daemon.publish(subjects.out(SECOND, "gateway-a", "c1"), b"forged")
    await daemon.publish(subjects.out(FIRST, "gateway-b", "c1"), b"another's")
    await daemon.publish(subjects.out(FIRST, "gateway-a", "c1"), b"mine")

    assert (await mine.next_msg(timeout=5)).data == b"mine"
    assert mine.pending_msgs == 0


async def test_a_reply_after_24_seconds_still_arrives(bus: connections.Connections) -> None:
    """Every way a reply can go is waited for at the same time: the default threshold loses late ones in silence."""
    daemon, registrar = await bus.daemon(FIRST), await bus.service("registrar")
    provisioner, prober = await bus.service("provisioner"), await bus.service("prober")

    def late(client: safeclient.SafeClient) -> Callable[[nats_msg.Msg], Awaitable[None]]:
        async def answer(message: nats_msg.Msg) -> None:
            await asyncio.sleep(24)
            await client.publish(message.reply, b"late")

        return answer

    ways = [
        (prober, subjects.rpc_call(FIRST), daemon),
        (daemon, subjects.report_call(FIRST), registrar),
        (provisioner, subjects.REGISTRAR_CALL, registrar),
    ]
    for _asker, subject, answerer in ways:
        await answerer.subscribe(subject, cb=late(answerer))
        await answerer.flush()
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(asker.request(subject, timeout=25.5)) for asker, subject, _ in ways]

    assert [task.result().data for task in asked] == [b"late"] * 3
    assert bus.refusals == []


def test_the_reply_threshold_is_that_of_the_daemons_rights(tmp_path: pathlib.Path) -> None:
    realm = accounts.Realm.create()
    allowed_ns = rights.daemon_permissions()["resp"]["ttl"]

    for jwt in (realm.fleet_jwt({}), realm.app_jwt()):
        services = [one for one in credentials.claims_of(jwt)["nats"]["exports"] if one["type"] == "service"]
        assert {one["response_threshold"] for one in services} == {allowed_ns} == {60_000_000_000}


# -- taking rights back


async def test_a_pushed_revocation_cuts_that_daemon_and_no_other(
    server: nats_server.NatsServer, bus: connections.Connections
) -> None:
    revoked = server.daemon_creds(FIRST)
    daemon, other = await bus.connect(FIRST, revoked.text), await bus.daemon("m2-1")
    prober, system = await bus.service("prober"), await bus.service("system")
    await answer_everything(daemon, subjects.rpc_call(FIRST))
    await answer_everything(other, "rpc.m2-1.call", b"well")
    cut, other_cut = asyncio.Event(), asyncio.Event()
    daemon.watch(lost=cut.set)
    other.watch(lost=other_cut.set)

    await accounts.push_account(
        system, server.realm.fleet_jwt({revoked.user_key: server.realm.time.now_ms() // 1000})
    )
    async with asyncio.timeout(5):
        await cut.wait()

    with pytest.raises(nats.errors.NoRespondersError):
        await prober.request(subjects.rpc_call(FIRST), timeout=5)
    assert (await prober.request("rpc.m2-1.call", timeout=5)).data == b"well"
    assert not other_cut.is_set()
    assert not await is_let_in(server, revoked.text)
    assert await is_let_in(server, server.daemon_creds(FIRST).text)


async def test_a_revocation_outlives_a_restart_with_the_same_configuration(
    server: nats_server.NatsServer, bus: connections.Connections
) -> None:
    revoked = server.daemon_creds(FIRST)
    push = server.realm.fleet_jwt({revoked.user_key: server.realm.time.now_ms() // 1000})
    await accounts.push_account(await bus.service("system"), push)

    server.kill()
    server.start()

    assert not await is_let_in(server, revoked.text)
    assert await is_let_in(server, server.daemon_creds("m2-1").text)


async def test_an_account_the_server_cannot_read_is_not_taken(
    server: nats_server.NatsServer, bus: connections.Connections
) -> None:
    with pytest.raises(errors.BadAnswer):
        await accounts.push_account(await bus.service("system"), "no account")

    assert await is_let_in(server, server.daemon_creds(FIRST).text)


# -- events


async def test_a_gateway_cannot_put_its_own_reader_in_place_of_a_stage(
    ready_bus: connections.Connections,
) -> None:
    """The server lets the body of an unnamed create request replace a durable; the named form takes the subject's name."""
    gateway, looker = await ready_bus.service("gateway"), await ready_bus.onlooker()
    config = {"name": "prober", "ack_policy": "explicit", "filter_subject": "machine.none.>"}
    body = json.dumps({"stream_name": "EVENTS", "config": config}).encode()
    create = "$JS.API.CONSUMER.CREATE.EVENTS"
    before = (await looker.jetstream().consumer_info("EVENTS", "prober")).config

    for refused in (create, f"{create}.prober", f"{create}.prober.machine.none.>"):
        await gateway.publish(refused, body)
        await ready_bus.refused(refused.lower())
    await gateway.request(f"{create}.mine", body, timeout=5)

    assert (await looker.jetstream().consumer_info("EVENTS", "prober")).config == before
