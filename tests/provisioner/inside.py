"""Looking into a sandbox: a HOME prepared before it is made, and a pipe in it through which a script tells what it saw."""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import select
import time
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

from paddock.bus import lifecycle
from paddock.contracts import ids
from paddock.provisioner.providers import host, procs, provider

WAIT_S = 10.0
SECRET = "SUAMSEEDTHATNOBODYMAYSEE"
ProviderT = TypeVar("ProviderT", bound=host.HostProvider)


@contextlib.asynccontextmanager
async def emptied(made: ProviderT) -> AsyncIterator[ProviderT]:
    """Nothing a test started outlives it."""
    try:
        yield made
    finally:
        for found in await made.sandboxes():
            await made.delete(found.sandbox_id)
        made.close()


def spec(machine: str = "m1", generation: int = 1) -> provider.SandboxSpec:
    return provider.SandboxSpec(
        machine_id=ids.MachineId(machine),
        generation=generation,
        bus_url="nats://127.0.0.1:4222",
        node="here",
        credentials=SECRET,
    )


def supervisors(made: host.HostProvider, sandbox: ids.SandboxId) -> list[int]:
    """Every living supervisor of the sandbox, by what the host's process list shows."""
    return [
        pid for pid in procs.everyone() if made._is_ours(pid, sandbox) and made._is_supervisor(pid, sandbox)
    ]


async def says(made: host.HostProvider, sandbox: ids.SandboxId, words: str) -> None:
    """Return once these words are in the boot log. A file has no event to wait for."""
    async with asyncio.timeout(WAIT_S):
        while words.encode() not in made.records.folder(sandbox).log_end(10_000)[0]:
            await lifecycle.pause(0.01, asyncio.Event())


@dataclasses.dataclass(frozen=True)
class Inside:
    """The HOME of a machine, prepared before its sandbox is made."""

    home: pathlib.Path

    @classmethod
    def of(cls, made: host.HostProvider, machine: str = "m1") -> "Inside":
        home = made.records.home(ids.MachineId(machine))
        home.mkdir(parents=True, exist_ok=True)
        return cls(home)

    def will_run(self, script: str) -> None:
        """Have the sandbox run this; what it writes to "$HOME/says" is what `says` returns."""
        (self.home / "workload.sh").write_text(f"exec > $HOME/says 2>&1\n{script}\n")
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self.home / "says")

    @contextlib.contextmanager
    def listening(self) -> Iterator["Ear"]:
        descriptor = os.open(self.home / "says", os.O_RDONLY | os.O_NONBLOCK)
        try:
            yield Ear(descriptor)
        finally:
            os.close(descriptor)


class Ear:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def line(self) -> str:
        return await asyncio.to_thread(self._read, until_line=True)

    async def all(self) -> str:
        return await asyncio.to_thread(self._read, until_line=False)

    def _read(self, *, until_line: bool) -> str:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        text, until = b"", time.monotonic() + WAIT_S
        while not (until_line and text.endswith(b"\n")):
            if not poll.poll(max(0, until - time.monotonic()) * 1000):
                raise TimeoutError(f"the sandbox said only {text!r}")
            part = os.read(self._descriptor, 65536)
            if not part:
                break
            text += part
        return text.decode()
