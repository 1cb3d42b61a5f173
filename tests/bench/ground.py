"""What is measured: `paddock up` as a process of its own on a fresh folder, and a bare nats-server beside it."""

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator

import aiohttp

from paddock.client import client
from paddock.contracts.api import machines
from paddock.local import runtime, sandboxes
from tests.support import nats_server

START_S = 60.0
FLOORS = pathlib.Path(__file__).with_name("floors.py")


@dataclasses.dataclass(frozen=True, slots=True)
class Ground:
    """`provider` is bubblewrap where it can run, else process."""

    folder: pathlib.Path
    bare_nats: str
    client: client.Client
    provider: str
    stack_pid: int

    async def machine(self, project: str | None = None) -> machines.Machine:
        """An active machine."""
        project = project or (await self.client.projects.create("bench", provider=self.provider)).id
        made = await self.client.machines.create(project, wait_s=60)
        if made.phase != "active":
            raise RuntimeError(f"the machine is {made.phase}: {made.reason}")
        return made


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[Ground]:
    """The ground; everything on it is gone after the block, machines included."""
    with tempfile.TemporaryDirectory(prefix="pdkbench-") as name:
        folder = pathlib.Path(name)
        try:
            with bare_nats() as url, _up(folder) as pid:
                data = folder / "data"
                await _ready(data, pid)
                async with client.Client(*_address(data), timeout_s=120) as asks:
                    provider = "bubblewrap" if await _can_isolate() else "process"
                    yield Ground(folder, url, asks, provider, pid)
        finally:
            # By the provider and not by the gateway: also after a measurement that broke.
            with sandboxes.Host(folder / "data", runtime.find()) as host:
                await host.remove_everything()


@contextlib.contextmanager
def bare_nats() -> Iterator[str]:
    port = free_port()
    server = subprocess.Popen(
        [nats_server.binary(), "-a", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_port(port)
        yield f"nats://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


@contextlib.contextmanager
def floor(what: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A bare process of `floors`, ready."""
    process = subprocess.Popen(
        [sys.executable, str(FLOORS), what, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the bare {what} did not start")
        yield process
    finally:
        process.terminate()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _up(folder: pathlib.Path) -> Iterator[int]:
    command = [
        str(pathlib.Path(sys.executable).parent / "paddock"), "up", "--data", str(folder / "data"),
        "--port", str(free_port()), "--unsafe-process-provider", "--log-level", "WARNING",
    ]  # fmt: skip
    with (folder / "up.log").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, "NO_COLOR": "1"})
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


async def _ready(data: pathlib.Path, pid: int) -> None:
    ends = time.monotonic() + START_S
    while (
        not (data / "gateway.json").exists()
        or not (data / "admin.token").exists()
        or not await _answers(data)
    ):
        if time.monotonic() > ends or not pathlib.Path(f"/proc/{pid}/exe").exists():
            raise RuntimeError(f"paddock up did not start: {(data.parent / 'up.log').read_text()[-2000:]}")
        await asyncio.sleep(0.05)


async def _answers(data: pathlib.Path) -> bool:
    url, _ = _address(data)
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def _address(data: pathlib.Path) -> tuple[str, str]:
    return json.loads((data / "gateway.json").read_text())["url"], (data / "admin.token").read_text().strip()


async def _can_isolate() -> bool:
    provider, _ = await sandboxes.best(runtime.find())
    return provider == "bubblewrap"


def _wait_port(port: int) -> None:
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)
    raise RuntimeError(f"nothing listens on port {port}")
