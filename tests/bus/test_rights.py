"""Who may say what: every user is let do exactly its row of the table, tried against a real server."""

import dataclasses
import re

import pytest

from paddock.bus import accounts, rights
from paddock.contracts import ids
from tests.support import connections, nats_server

ME = "m1-1"
PUBLISHED = (
    "nudge.outbox", "svc.registrar.call", "svc.provisioner.n1.call",
    "rpc.m1-1.call", "rpc.m1-1.ctl", "rpc.m1-2.call", "rpc.m2-1.call", "rpc.m2-1.ctl", "rpc.m1-1.other",
    "out.m1-1.gateway-a.c1", "out.m1-2.gateway-a.c1", "out.m2-1.gateway-a.c1",
    "report.m1-1.call", "report.m1-1.beat", "report.m1-2.call", "report.m2-1.beat", "report.m1-1.other",
    "enrol.m1-1.call", "enrol.m2-1.call",
    "machine.created.p1.m1", "project.created.p1.all", "mon.p1.machine.created.m1",
    "dlq.provisioner.machine.created.p1.m1", "dlq.setup_pusher.x.y.p1.m1", "dlq.prober.x.y.p1.m1",
    "_INBOX.x", "_INBOX_gateway.x", "_INBOX_m1-1.x", "_INBOX_m2-1.x", "_R_.guessed",
    "$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.EVENTS", "$JS.API.STREAM.MSG.GET.EVENTS",
    "$JS.API.STREAM.CREATE.EVENTS", "$JS.API.STREAM.UPDATE.DEADLETTERS", "$JS.API.STREAM.CREATE.OTHER",
    "$JS.API.STREAM.DELETE.EVENTS", "$JS.API.STREAM.PURGE.EVENTS", "$JS.API.STREAM.MSG.DELETE.EVENTS",
    "$JS.API.CONSUMER.CREATE.EVENTS.mine", "$JS.API.CONSUMER.CREATE.EVENTS.prober", "$JS.API.CONSUMER.CREATE.OTHER.x",
    "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.prober",
    "$JS.API.CONSUMER.DELETE.EVENTS.mine", "$JS.API.CONSUMER.DELETE.EVENTS.prober",
    "$JS.API.CONSUMER.MSG.NEXT.EVENTS.mine", "$JS.API.CONSUMER.MSG.NEXT.EVENTS.provisioner",
    "$JS.API.CONSUMER.MSG.NEXT.EVENTS.setup_pusher", "$JS.API.CONSUMER.MSG.NEXT.EVENTS.prober",
    "$JS.ACK.EVENTS.provisioner.1.1.1.1.1", "$JS.ACK.EVENTS.setup_pusher.1.1.1.1.1", "$JS.ACK.EVENTS.prober.1.1.1.1.1",
    "$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.CLAIMS.DELETE", "$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.USER.INFO",
)  # fmt: skip
SUBSCRIBED = (
    ">", "*.>", "rpc.>", "rpc.*.call", "rpc.m1-1.call", "rpc.m1-1.ctl", "rpc.m1-2.call", "rpc.m2-1.call",
    "report.>", "report.*.call", "report.*.beat", "report.m2-1.call", "enrol.*.call",
    "out.>", "out.*.*.*", "out.*.gateway-a.*", "svc.>", "svc.registrar.call", "svc.provisioner.n1.call", "nudge.outbox",
    "machine.>", "machine.created.p1.m1", "mon.>", "mon.p1.>", "mon.p2.>", "dlq.>",
    "_INBOX.>", "_INBOX_gateway.>", "_INBOX_registrar.>", "_INBOX_provisioner.>", "_INBOX_setup_pusher.>",
    "_INBOX_prober.>", "_INBOX_bootstrap.>", "_INBOX_system.>", "_INBOX_m1-1.>", "_INBOX_m2-1.>", "_R_.>",
    "$JS.>", "$JS.ACK.>", "$JS.EVENT.>", "$SYS.>", "$SYS.ACCOUNT.*.CONNECT", "$SYS.REQ.USER.AUTH",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    publishes: frozenset[str]
    subscribes: frozenset[str]


def row(publishes: str, subscribes: str) -> Row:
    """Space-separated; the rest of both universes is refused."""
    found = Row(frozenset(publishes.split()), frozenset(subscribes.split()))
    assert found.publishes <= set(PUBLISHED), "a subject that is never tried"
    assert found.subscribes <= set(SUBSCRIBED), "a subject that is never tried"
    return found


DAEMON_CALLS = "rpc.m1-1.call rpc.m1-1.ctl rpc.m1-2.call rpc.m2-1.call rpc.m2-1.ctl"
CHUNKS = "out.*.*.* out.*.gateway-a.*"
SERVICES: dict[rights.ServiceName, Row] = {
    "gateway": row(
        f"nudge.outbox svc.registrar.call svc.provisioner.n1.call {DAEMON_CALLS} $JS.API.STREAM.INFO.EVENTS"
        " $JS.API.STREAM.MSG.GET.EVENTS $JS.API.CONSUMER.CREATE.EVENTS.mine $JS.API.CONSUMER.DELETE.EVENTS.mine"
        " $JS.API.CONSUMER.MSG.NEXT.EVENTS.mine",
        f"_INBOX_gateway.> {CHUNKS} mon.> mon.p1.> mon.p2.>",
    ),
    "registrar": row(
        "nudge.outbox machine.created.p1.m1 project.created.p1.all $JS.API.STREAM.INFO.EVENTS",
        "_INBOX_registrar.> report.*.call report.*.beat report.m2-1.call enrol.*.call svc.registrar.call nudge.outbox",
    ),
    "provisioner": row(
        "nudge.outbox svc.registrar.call dlq.provisioner.machine.created.p1.m1"
        " $JS.API.CONSUMER.MSG.NEXT.EVENTS.provisioner $JS.ACK.EVENTS.provisioner.1.1.1.1.1",
        "_INBOX_provisioner.> svc.provisioner.n1.call",
    ),
    "setup_pusher": row(
        f"nudge.outbox {DAEMON_CALLS} dlq.setup_pusher.x.y.p1.m1 $JS.API.CONSUMER.MSG.NEXT.EVENTS.setup_pusher"
        " $JS.ACK.EVENTS.setup_pusher.1.1.1.1.1",
        f"_INBOX_setup_pusher.> {CHUNKS}",
    ),
    "prober": row(
        f"nudge.outbox {DAEMON_CALLS} dlq.prober.x.y.p1.m1 $JS.API.CONSUMER.MSG.NEXT.EVENTS.prober"
        " $JS.ACK.EVENTS.prober.1.1.1.1.1",
        f"_INBOX_prober.> {CHUNKS}",
    ),
    "bootstrap": row(
        "nudge.outbox $JS.API.STREAM.INFO.EVENTS $JS.API.STREAM.CREATE.EVENTS $JS.API.STREAM.UPDATE.DEADLETTERS"
        " $JS.API.CONSUMER.CREATE.EVENTS.mine $JS.API.CONSUMER.CREATE.EVENTS.prober"
        " $JS.API.CONSUMER.DURABLE.CREATE.EVENTS.prober",
        "_INBOX_bootstrap.>",
    ),
    "system": row("$SYS.REQ.CLAIMS.UPDATE $SYS.REQ.SERVER.PING.CONNZ", "_INBOX_system.>"),
}
DAEMON = row(
    "report.m1-1.call report.m1-1.beat out.m1-1.gateway-a.c1", "rpc.m1-1.call rpc.m1-1.ctl _INBOX_m1-1.>"
)
BOOT = row("enrol.m1-1.call", "_INBOX_m1-1.>")
MONITOR = row("", "mon.p1.>")


async def tried(bus: connections.Connections, name: str, creds: str) -> Row:
    """What `name` is let do of everything there is to try."""
    client = await bus.connect(name, creds)

    async def ignore(_message: object) -> None: ...

    for subject in PUBLISHED:
        await client.publish(subject, b"")
    for subject in SUBSCRIBED:
        await client.subscribe(subject, cb=ignore)
    # The server judges in order, and nobody may say this one.
    await client.publish("nobody.may.say.this")
    await bus.refused("nobody.may.say.this")
    assert client.is_connected, "a refusal must not end the connection"
    return Row(
        frozenset(PUBLISHED) - _refused(bus, "publish"), frozenset(SUBSCRIBED) - _refused(bus, "subscription")
    )


def _refused(bus: connections.Connections, what: str) -> frozenset[str]:
    """nats-py shows subjects in lower case."""
    pattern = re.compile(rf'permissions violation for {what} to "([^"]+)"')
    lower = {found[1] for text in bus.refusals if (found := pattern.search(text))}
    return frozenset(one for one in (*PUBLISHED, *SUBSCRIBED) if one.lower() in lower)


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_may_do_exactly_its_row(
    server: nats_server.NatsServer, bus: connections.Connections, name: rights.ServiceName
) -> None:
    assert await tried(bus, name, server.realm.service_creds(name)) == SERVICES[name]


async def test_a_daemon_may_do_exactly_its_row(
    server: nats_server.NatsServer, bus: connections.Connections
) -> None:
    assert await tried(bus, ME, server.daemon_creds(ME).text) == DAEMON


async def test_a_booting_daemon_may_only_enrol(
    server: nats_server.NatsServer, bus: connections.Connections
) -> None:
    realm = server.realm
    issued = accounts.daemon_creds(realm.sign_boot.seed, realm.fleet.public, ME, ttl_s=60)

    assert await tried(bus, ME, issued.text) == BOOT


async def test_a_monitor_may_only_listen_to_its_project(
    server: nats_server.NatsServer, bus: connections.Connections
) -> None:
    assert await tried(bus, "monitor", server.realm.monitor_creds(ids.ProjectId("p1"))) == MONITOR


async def test_system_hears_who_of_the_fleet_comes_and_goes(
    server: nats_server.NatsServer, bus: connections.Connections
) -> None:
    system = await bus.service("system")
    account = server.realm.fleet.public
    coming = await system.subscribe(f"$SYS.ACCOUNT.{account}.CONNECT")
    await system.flush()

    await bus.daemon(ME)

    assert b'"name":"m1-1"' in (await coming.next_msg(timeout=5)).data
    assert bus.refusals == []
