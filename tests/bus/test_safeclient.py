"""A connection that breaks comes back, whatever broke it; each failure was seen to leave nats-py 2.16 dead."""

import asyncio
import os
import pathlib
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import nats.errors
import pytest
from nats.aio import msg as nats_msg

from paddock.bus import files, safeclient
from paddock.contracts import errors
from tests.support import connections, nats_server

S = "m1-1"
CALL = f"rpc.{S}.call"
FAST_PINGS = {"ping_interval": 0.1, "max_outstanding_pings": 2}


class Seen:
    """What happened to one connection."""

    def __init__(self, client: safeclient.SafeClient) -> None:
        self.lost, self.restored = asyncio.Event(), asyncio.Event()
        client.watch(lost=self.lost.set, restored=self.restored.set)

    async def come_back(self) -> None:
        async with asyncio.timeout(5):
            await self.lost.wait()
            await self.restored.wait()


async def _echo(client: safeclient.SafeClient, subject: str = CALL) -> None:
    async def answer(message: nats_msg.Msg) -> None:
        await client.publish(message.reply, b"here")

    await client.subscribe(subject, cb=answer)
    await client.flush()


async def _asked(client: safeclient.SafeClient, subject: str = CALL) -> bytes:
    return (await client.request(subject, timeout=2)).data


@pytest.fixture
def frozen(server: nats_server.NatsServer) -> Iterator["Freezer"]:
    freezer = Freezer(server)
    yield freezer
    freezer.thaw()


class Freezer:
    """Stops the server's process without closing a connection: the peer that is there and says nothing."""

    def __init__(self, server: nats_server.NatsServer) -> None:
        self._pid = server.pid

    def freeze(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)
        # Its threads stop one by one, after the signal was sent.
        while any(state != "T" for state in self._thread_states()):
            time.sleep(0.001)

    def _thread_states(self) -> list[str]:
        tasks = pathlib.Path(f"/proc/{self._pid}/task").iterdir()
        return [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks]

    def thaw(self) -> None:
        os.kill(self._pid, signal.SIGCONT)


async def test_a_late_pong_leaves_the_connection_alive(bus: connections.Connections, frozen: Freezer) -> None:
    client, other = await bus.daemon(S), await bus.service("prober")
    await _echo(client)
    seen = Seen(client)
    frozen.freeze()
    with pytest.raises(nats.errors.FlushTimeoutError):
        await client.flush(0.05)  # type: ignore[arg-type]  # declared int, meant as seconds
    frozen.thaw()

    assert await _asked(other) == b"here"
    assert not seen.lost.is_set()


async def test_a_raising_error_callback_and_a_slow_consumer_leave_the_connection_alive(
    bus: connections.Connections,
) -> None:
    raised = asyncio.Event()

    async def raises(_error: Exception) -> None:
        raised.set()
        raise ValueError("a bug in a callback")

    client, other = await bus.onlooker(), await bus.service("prober")
    slow = await bus.daemon(S, error_cb=raises)
    gate = asyncio.Event()

    async def stuck(_message: nats_msg.Msg) -> None:
        await gate.wait()

    await slow.subscribe(f"rpc.{S}.ctl", cb=stuck, pending_msgs_limit=2)
    await _echo(slow)
    for _ in range(20):
        await client.publish(f"rpc.{S}.ctl", b"x")
    await client.flush()
    async with asyncio.timeout(5):
        await raised.wait()

    assert await _asked(other) == b"here"
    gate.set()


async def test_raising_callbacks_do_not_keep_a_connection_down(
    bus: connections.Connections, server: nats_server.NatsServer
) -> None:
    async def raises() -> None:
        raise ValueError("a bug in a callback")

    def also_raises() -> None:
        raise ValueError("a bug in a listener")

    client = await bus.daemon(S, disconnected_cb=raises, reconnected_cb=raises)
    client.watch(lost=also_raises, restored=also_raises)
    other = await bus.service("prober")
    await _echo(client)
    seen, other_seen = Seen(client), Seen(other)
    server.restart()
    await seen.come_back()
    await other_seen.come_back()

    assert await _asked(other) == b"here"


async def test_unreadable_credentials_do_not_end_the_reconnecting(
    bus: connections.Connections, server: nats_server.NatsServer, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "bus.creds"
    files.write_private(path, server.daemon_creds(S).text)
    failed = asyncio.Event()

    async def keep(error: Exception) -> None:
        if "cannot log in" in str(error):
            failed.set()

    client = await safeclient.connect(
        server.url, name=S, creds=path, inbox_prefix=f"_INBOX_{S}", reconnect_jitter_s=0.02, error_cb=keep
    )
    seen = Seen(client)
    files.write_private(path, "")
    server.restart()
    async with asyncio.timeout(5):
        await failed.wait()
    files.write_private(path, server.daemon_creds(S).text)
    await seen.come_back()

    assert client.is_connected
    await client.close()


async def test_an_exception_in_the_parser_becomes_a_reconnect(bus: connections.Connections) -> None:
    client, other = await bus.daemon(S), await bus.service("prober")
    await _echo(client)
    seen = Seen(client)
    parse, calls = client._ps.parse, 0

    async def broken_once(data: bytes = b"") -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyError("a bug in the parser")
        return await parse(data)

    client._ps.parse = broken_once  # type: ignore[method-assign]
    await other.publish(CALL, b"")
    await seen.come_back()

    assert await _asked(other) == b"here"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(FAST_PINGS, id="by pings"),
        pytest.param({"dead_peer_s": 0.3}, id="by unacknowledged output"),
    ],
)
async def test_a_frozen_peer_with_unsent_output_is_noticed_and_left(
    bus: connections.Connections, frozen: Freezer, options: dict[str, Any]
) -> None:
    given_up = asyncio.Event()

    async def disconnected() -> None:
        given_up.set()

    client = await bus.service("prober", disconnected_cb=disconnected, **options)
    seen = Seen(client)
    frozen.freeze()
    blast = asyncio.create_task(_blast(client))
    async with asyncio.timeout(5):
        # Called when the old connection is closed, while its peer is still frozen.
        await given_up.wait()
    blast.cancel()
    await asyncio.wait({blast})
    frozen.thaw()
    await seen.come_back()

    assert client.is_connected


async def _blast(client: safeclient.SafeClient) -> None:
    """More than the kernel's buffers hold, so that output stays unsent."""
    for _ in range(400):
        await client.publish(CALL, b"x" * 100_000)


async def test_what_an_unbuffered_connection_had_not_sent_is_not_sent_later(
    bus: connections.Connections, frozen: Freezer
) -> None:
    client, observer = await bus.service("prober", pending_size=0, **FAST_PINGS), await bus.daemon("m2-1")
    heard: list[bytes] = []
    last = asyncio.Event()

    async def hear(message: nats_msg.Msg) -> None:
        heard.append(message.data)
        last.set()

    await observer.subscribe("rpc.m2-1.call", cb=hear)
    await observer.flush()
    seen = Seen(client)
    frozen.freeze()
    await _blast(client)
    await asyncio.sleep(0)
    await client.publish("rpc.m2-1.call", b"stale")
    async with asyncio.timeout(8):
        await seen.lost.wait()
    frozen.thaw()
    await seen.come_back()
    await client.publish("rpc.m2-1.call", b"fresh")
    async with asyncio.timeout(5):
        await last.wait()

    assert heard == [b"fresh"]


async def test_a_cancelled_publish_ends_though_its_peer_is_frozen(
    bus: connections.Connections, frozen: Freezer
) -> None:
    client = await bus.service("prober", pending_size=1000)
    frozen.freeze()
    blast = asyncio.create_task(_blast(client))
    done, _ = await asyncio.wait({blast}, timeout=0.2)
    assert not done, "the output did not get stuck"
    blast.cancel()
    await asyncio.wait({blast}, timeout=5)

    assert blast.cancelled()


async def test_an_expired_credential_is_read_anew_and_the_connection_goes_on(
    bus: connections.Connections, server: nats_server.NatsServer, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "bus.creds"
    files.write_private(path, server.daemon_creds(S, ttl_s=2).text)
    client = await safeclient.connect(
        server.url, name=S, creds=path, inbox_prefix=f"_INBOX_{S}", reconnect_jitter_s=0.02
    )
    other = await bus.service("prober")
    await _echo(client)
    seen = Seen(client)
    files.write_private(path, server.daemon_creds(S).text)
    await seen.come_back()

    assert await _asked(other) == b"here"
    await client.close()


async def test_an_oversized_message_costs_a_reconnect_and_not_the_connection(
    bus: connections.Connections,
) -> None:
    client, other = await bus.daemon(S), await bus.service("prober")
    await _echo(client)
    seen = Seen(client)
    # nats-py does not count headers; the server does, and breaks the connection.
    await client.publish(f"report.{S}.beat", b"x" * client.max_payload, headers={"A": "b" * 100})
    await seen.come_back()

    assert await _asked(other) == b"here"


async def test_a_permission_violation_is_reported_and_keeps_the_connection(
    bus: connections.Connections,
) -> None:
    client, other = await bus.daemon(S), await bus.service("prober")
    await _echo(client)
    seen = Seen(client)
    await client.publish("rpc.m2-1.call", b"")
    await bus.refused("rpc.m2-1.call")

    assert await _asked(other) == b"here"
    assert not seen.lost.is_set()


async def test_a_bus_that_is_not_there_at_first_is_bus_down_after_the_given_time() -> None:
    began = time.monotonic()
    tasks = len(asyncio.all_tasks())
    with pytest.raises(errors.BusDown):
        await safeclient.connect("nats://127.0.0.1:1", name="x", timeout_s=0.2, reconnect_jitter_s=0.02)

    assert time.monotonic() - began < 2
    assert len(asyncio.all_tasks()) == tasks


async def test_a_bus_that_comes_later_is_found(
    server: nats_server.NatsServer,
) -> None:
    server.stop()
    connecting = asyncio.create_task(
        safeclient.connect(
            server.url, name=S, creds=server.daemon_creds(S).text, reconnect_jitter_s=0.02, timeout_s=5
        )
    )
    await asyncio.wait({connecting}, timeout=0.1)
    server.start()
    client = await connecting

    assert client.is_connected
    await client.close()


async def test_a_flush_confirms_what_was_sent_before_it(bus: connections.Connections) -> None:
    """Seen as `machine_offline` for one in a hundred daemons that had just subscribed and flushed."""
    client = await bus.daemon(S)
    sent: list[bytes] = []
    transport: Any = client._transport
    write, write_lines = transport.write, transport.writelines

    def keep(data: bytes) -> None:
        sent.append(data)
        write(data)

    def keep_lines(lines: list[bytes]) -> None:
        sent.extend(lines)
        write_lines(lines)

    transport.write, transport.writelines = keep, keep_lines
    await _echo(client)

    assert [data[:4] for data in sent] == [b"SUB ", b"PING"]


async def test_closing_tells_whoever_watches_that_it_is_lost(bus: connections.Connections) -> None:
    client = await bus.daemon(S)
    seen = Seen(client)
    await client.close()

    assert seen.lost.is_set()


async def test_who_stopped_watching_is_told_nothing(bus: connections.Connections) -> None:
    client = await bus.daemon(S)
    told: list[str] = []
    end = client.watch(lost=lambda: told.append("lost"))
    end()
    await client.close()

    assert told == []


async def test_a_first_connect_ends_in_time_although_every_attempt_is_refused() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        refusing = f"nats://127.0.0.1:{probe.getsockname()[1]}"

        async def give_up() -> None:
            with pytest.raises(errors.BusDown):
                await safeclient.connect(refusing, name="late", timeout_s=0.05, reconnect_jitter_s=0.0)

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            for _ in range(60):
                group.create_task(give_up())
