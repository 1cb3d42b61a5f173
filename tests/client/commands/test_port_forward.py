"""`paddock port-forward`: ports of a machine, as if they were here."""

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest

from paddock.client import client as gateway_client
from paddock.client.commands import port_forward
from paddock.contracts import errors, phases
from tests.gateway import apps, door
from tests.support import house, processes


@pytest.fixture
async def there(tmp_path: pathlib.Path) -> AsyncIterator[apps.Machine]:
    async with house.opened(tmp_path) as ground, door.opened(ground) as gateway, apps.machine(gateway) as up:
        yield up


@pytest.fixture
async def client(there: apps.Machine) -> AsyncIterator[gateway_client.Client]:
    async with gateway_client.Client(there.gateway.url, there.gateway.token) as connected:
        yield connected


@pytest.fixture
async def app() -> AsyncIterator[apps.App]:
    running = apps.App()
    async with running.listening():
        yield running


@contextlib.asynccontextmanager
async def forwarding(
    client: gateway_client.Client, there: apps.Machine, *ports: int
) -> AsyncIterator[list[int]]:
    """Ports here for these of the machine."""
    stop = asyncio.Event()
    running = port_forward.Forwarding(client.machine(there.id))
    pairs = [port_forward.Pair(0, port) for port in ports]
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        tasks.create_task(running.run(pairs, port_forward.LOOPBACK, stop))
        await running.is_listening.wait()
        try:
            yield [running.listening[port] for port in ports]
        finally:
            stop.set()


@pytest.mark.parametrize(
    ("text", "pair"),
    [("8080:3000", (8080, 3000)), ("3000", (3000, 3000)), ("0:22", (0, 22)), ("65535:1", (65_535, 1))],
)
def test_ports_are_given_as_here_and_there_or_once_for_both(text: str, pair: tuple[int, int]) -> None:
    assert port_forward.pair_of(text) == port_forward.Pair(*pair)


@pytest.mark.parametrize(
    "text", ["", "0", "x", "1:0", "65536", "1:65536", "65536:1", "1:2:3", ":80", "80:", "-1:80", "٣"]
)
def test_what_is_no_pair_of_ports_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidParams, match="cannot forward"):
        port_forward.pair_of(text)


async def test_a_port_of_a_machine_is_one_of_this_host(
    client: gateway_client.Client, there: apps.Machine, app: apps.App
) -> None:
    async with forwarding(client, there, app.port) as [here], aiohttp.ClientSession() as http:
        for _ in range(3):
            async with http.get(f"http://127.0.0.1:{here}/a?b=c") as answer:
                assert await answer.text() == "GET /a?b=c"
    assert app.last.headers["Host"] == f"127.0.0.1:{here}", "nothing is read on the way"


async def test_many_connections_to_several_ports_are_apart(
    client: gateway_client.Client, there: apps.Machine
) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(str(len(await reader.read())).encode())

    async def say(port: int, text: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(text)
        writer.write_eof()
        said = await reader.read()
        writer.close()
        return said

    async with (
        apps.raw(shout) as one,
        apps.raw(count) as two,
        forwarding(client, there, one, two) as [shouts, counts],
        asyncio.TaskGroup() as tasks,
    ):
        loud = [tasks.create_task(say(shouts, f"hello {number}".encode())) for number in range(10)]
        long = [tasks.create_task(say(counts, bytes(number * 100_000))) for number in range(5)]
    assert [task.result() for task in loud] == [f"HELLO {number}".encode() for number in range(10)]
    assert [task.result() for task in long] == [str(number * 100_000).encode() for number in range(5)]


async def test_a_port_where_nothing_listens_is_told_and_the_rest_goes_on(
    client: gateway_client.Client, there: apps.Machine, app: apps.App, capsys: pytest.CaptureFixture[str]
) -> None:
    async with apps.raw(lambda _reader, _writer: asyncio.sleep(0)) as refusing:
        pass
    async with (
        forwarding(client, there, refusing, app.port) as [closed, good],
        aiohttp.ClientSession() as http,
    ):
        with pytest.raises(aiohttp.ClientError):
            await http.get(f"http://127.0.0.1:{closed}/")
        async with http.get(f"http://127.0.0.1:{good}/") as answer:
            assert answer.status == 200
    said = capsys.readouterr().err
    assert said.startswith(f"paddock: cannot connect to port {refusing}: ")
    assert said.splitlines()[0].count(f"port {refusing}") == 1


async def test_an_application_that_hangs_up_hangs_up_here_and_nothing_is_said(
    client: gateway_client.Client, there: apps.Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"bye\n")

    async with apps.raw(serve) as port, forwarding(client, there, port) as [here]:
        reader, writer = await asyncio.open_connection("127.0.0.1", here)
        writer.write(b"hello\n")
        assert await reader.read() == b"bye\n"
        writer.close()
        await processes.until(lambda: there.tunnels == 0)
    assert capsys.readouterr().err == ""


async def test_a_caller_that_leaves_ends_the_connection_in_the_machine(
    client: gateway_client.Client, there: apps.Machine
) -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        try:
            await reader.read()
        finally:
            gone.set()

    async with apps.raw(serve) as port, forwarding(client, there, port) as [here]:
        reader, writer = await asyncio.open_connection("127.0.0.1", here)
        await reader.readexactly(5)
        writer.transport.abort()
        await gone.wait()
        await processes.until(lambda: there.tunnels == 0)
        assert gone.is_set()


async def test_a_machine_that_goes_away_cuts_what_is_open_and_says_so(
    client: gateway_client.Client, there: apps.Machine, app: apps.App, capsys: pytest.CaptureFixture[str]
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await reader.read()

    async with apps.raw(serve) as port, forwarding(client, there, port, app.port) as [here, good]:
        reader, writer = await asyncio.open_connection("127.0.0.1", here)
        await reader.readexactly(5)
        there.cut()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await processes.until(lambda: there.nc.is_connected)
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{good}/") as answer:
            assert answer.status == 200
    assert f"paddock: port {port}: " in capsys.readouterr().err


async def test_a_port_here_that_is_taken_is_said_to_be(
    client: gateway_client.Client, there: apps.Machine, app: apps.App
) -> None:
    running = port_forward.Forwarding(client.machine(there.id))
    pair = port_forward.Pair(app.port, 80)
    with pytest.raises(errors.InvalidParams) as failed:
        await running.run([port_forward.Pair(0, 80), pair], port_forward.LOOPBACK, asyncio.Event())
    assert failed.value.message == f"cannot listen on 127.0.0.1:{app.port}: address already in use"
    assert running.listening == {}


async def command(there: apps.Machine, *arguments: str) -> asyncio.subprocess.Process:
    """`paddock port-forward` as a process of its own."""
    environment = {**os.environ, "PADDOCK_URL": there.gateway.url, "PADDOCK_TOKEN": there.gateway.token}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "paddock.client",
        "port-forward",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )


async def test_the_command_says_where_it_listens_and_ends_with_ctrl_c(
    there: apps.Machine, app: apps.App
) -> None:
    async with asyncio.timeout(30):
        running = await command(there, there.id, f"0:{app.port}")
        assert running.stdout is not None
        where, _, what = (await running.stdout.readline()).decode().partition(" is ")
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://{where}/") as answer:
                assert await answer.text() == "GET /"
            running.send_signal(signal.SIGINT)
            _, said = await running.communicate()
    assert what == f"port {app.port} of {there.id}\n"
    assert (running.returncode, said) == (0, b"")
    assert where.startswith("127.0.0.1:")


async def test_the_command_says_it_in_json_too(there: apps.Machine, app: apps.App) -> None:
    async with asyncio.timeout(30):
        running = await command(there, "--json", there.id, f"0:{app.port}")
        assert running.stdout is not None
        said = json.loads(await running.stdout.readline())
        running.send_signal(signal.SIGTERM)
        await running.communicate()
    assert (said["machine"], said["port"]) == (there.id, app.port)
    assert running.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said", "exit_code"),
    [
        (("nosuch", "80"), "cannot find machine nosuch", 72),
        (("{id}", "80:0"), "cannot forward '80:0'", 78),
        (("{id}", "{taken}:80"), "cannot listen on 127.0.0.1:{taken}: ", 78),
        (("{id}", "80", "--bind", "256.1.1.1"), "cannot listen on 256.1.1.1:80: ", 78),
    ],
)
async def test_what_cannot_be_forwarded_is_one_sentence(
    there: apps.Machine, app: apps.App, arguments: tuple[str, ...], said: str, exit_code: int
) -> None:
    facts = {"id": there.id, "taken": app.port}
    async with asyncio.timeout(30):
        running = await command(there, *(one.format(**facts) for one in arguments))
        _, heard = await running.communicate()
    assert heard.decode().startswith(f"paddock: {said.format(**facts)}")
    assert heard.count(b"\n") == 1
    assert running.returncode == exit_code


@pytest.mark.parametrize(("phase", "exit_code"), [(phases.Phase.FAILED, 73), (phases.Phase.DELETING, 72)])
async def test_a_machine_that_is_gone_or_failed_is_refused_with_its_phase(
    there: apps.Machine, phase: phases.Phase, exit_code: int
) -> None:
    machine_id = await there.gateway.machine_in(phase)
    async with asyncio.timeout(30):
        running = await command(there, machine_id, "0:80")
        output, heard = await running.communicate()
    assert heard.decode().startswith(f"paddock: cannot forward ports of machine {machine_id}: it is {phase}")
    assert (running.returncode, output, heard.count(b"\n")) == (exit_code, b"", 1)


def test_a_remark_names_its_port_once() -> None:
    assert port_forward._about(80, "cannot connect to port 80: no") == "cannot connect to port 80: no"
    assert port_forward._about(80, "cannot open 8080") == "port 80: cannot open 8080"
    assert port_forward._about(80, "it had port 8080") == "port 80: it had port 8080"
