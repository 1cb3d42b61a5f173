"""A keeper in a test's machine, and a daemon's link to it."""

import asyncio
import contextlib
import pathlib
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

from paddock.daemon import exec_record, keeper_link, keeper_protocol, output
from tests.daemon import machine as machines
from tests.support import processes

WAIT_S = 15.0
KEEP = """
import sys
from paddock.daemon import keeper, keeper_protocol
keeper_protocol.WRITE_S = {write_s}
sys.exit(keeper.main({folder!r}, idle_s={idle_s}))
"""


class Daemon:
    """What a daemon does with its keeper, and what it heard of it."""

    def __init__(self, folder: pathlib.Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self.environ = environ
        self.grew: list[keeper_protocol.Header] = []
        self.lost = asyncio.Event()
        self._ends: dict[str, asyncio.Future[keeper_protocol.Header]] = {}
        self._growth = asyncio.Event()
        self.link = keeper_link.KeeperLink(
            folder, environ, on_grew=self._on_grew, on_ended=self._on_ended, on_lost=self.lost.set
        )

    async def ask(self, do: str, exec_id: str = "", blob: bytes = b"", **members: object) -> Any:
        named = {"id": exec_id} if exec_id else {}
        return await self.link.ask({"do": do, **named, **members}, blob)

    async def refused(self, do: str, exec_id: str = "", blob: bytes = b"", **members: object) -> Any:
        """The error that answers this."""
        try:
            said = await self.ask(do, exec_id, blob, **members)
        except keeper_link.RefusedError as error:
            return error.error
        raise AssertionError(f"not refused: {said}")

    def order(self, argv: tuple[str, ...], **more: object) -> dict[str, Any]:
        return {
            "digest": "d1",
            "argv": list(argv),
            "env": self.environ,
            "cwd": "/",
            "uid": None,
            "gid": None,
            "groups": None,
            "pty": None,
            "stdin": False,
            "timeoutS": None,
            "limitBytes": 1 << 30,
            "beganAtMs": 1_750_000_000_000,
            "namespace": "here",
            **more,
        }

    async def start(self, exec_id: str, *argv: str, **more: object) -> Any:
        return await self.ask("start", exec_id, **self.order(argv, **more))

    async def shell(self, exec_id: str, script: str, **more: object) -> Any:
        return await self.start(exec_id, "/bin/sh", "-c", script, **more)

    async def write(
        self, exec_id: str, data: bytes = b"", at: int | None = None, *, eof: bool = False
    ) -> tuple[int, bool]:
        said = await self.ask("write", exec_id, data, offset=at, eof=eof)
        return said["accepted"], said["closed"]

    async def end(self, exec_id: str) -> Any:
        """How it ended, once it has."""
        async with asyncio.timeout(WAIT_S):
            return await asyncio.shield(self._end_of(exec_id))

    def has_ended(self, exec_id: str) -> bool:
        return self._end_of(exec_id).done()

    def forget(self, exec_id: str) -> None:
        """Another command has this name from now on."""
        del self._ends[exec_id]

    async def until_grown(self, exec_id: str, text: bytes, stream: str = "stdout") -> None:
        """Return when this is in what a watched command wrote."""
        async with asyncio.timeout(WAIT_S):
            while text not in self.written(exec_id, stream):
                self._growth.clear()
                await self._growth.wait()

    def path(self, exec_id: str) -> pathlib.Path:
        return self.folder / keeper_protocol.FOLDER_NAME / exec_id

    def record(self, exec_id: str) -> exec_record.Record:
        found = exec_record.read(self.path(exec_id))
        assert found is not None
        return found

    def written(self, exec_id: str, stream: str = "stdout") -> bytes:
        """All that is kept of what it wrote."""
        reader = output.Reader(self.path(exec_id), stream, self.record(exec_id).segment_bytes)
        first, size = reader.bounds()
        try:
            return reader.read(first, size - first)
        finally:
            reader.close()

    def _end_of(self, exec_id: str) -> "asyncio.Future[keeper_protocol.Header]":
        return self._ends.setdefault(exec_id, asyncio.get_running_loop().create_future())

    def _on_grew(self, header: keeper_protocol.Header) -> None:
        self.grew.append(header)
        self._growth.set()

    def _on_ended(self, header: keeper_protocol.Header) -> None:
        self._end_of(str(header["id"])).set_result(header)


def start_keeper(
    machine: machines.Machine, *, idle_s: float = 60, write_s: float = 10
) -> "subprocess.Popen[bytes]":
    """Start a keeper of our own, with shorter times than the real one has."""
    script = KEEP.format(folder=str(machine.folder), idle_s=idle_s, write_s=write_s)
    return machine.start_python("-c", script)


async def connected(folder: pathlib.Path, environ: dict[str, str]) -> Daemon:
    """A daemon's link to the keeper that was started there."""
    daemon = Daemon(folder, environ)
    await processes.until((folder / keeper_protocol.SOCKET_NAME).exists)
    async with asyncio.timeout(WAIT_S):
        while not await daemon.link.connect():  # it is there a moment before it listens
            pass
    return daemon


@contextlib.asynccontextmanager
async def keeping(
    machine: machines.Machine, *, idle_s: float = 60, write_s: float = 10
) -> AsyncIterator[Daemon]:
    """A keeper and a link to it."""
    start_keeper(machine, idle_s=idle_s, write_s=write_s)
    daemon = await connected(machine.folder, machine.environ)
    try:
        yield daemon
    finally:
        await daemon.link.close()


def python(script: str) -> tuple[str, ...]:
    """A command that runs this."""
    return (sys.executable, "-I", "-S", "-c", script)
