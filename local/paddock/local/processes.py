"""The same stack with every service as a process of its own, to be killed and started again by name.

For tests of faults: `async with Fleet(settings) as fleet`, then `await fleet.kill("prober")`, `await
fleet.start("prober", barrier="probe:after-effect")`. No service is started again by itself; the servers are.
"""

import asyncio
import contextlib
import os
import pathlib
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from paddock.local import base, data, leashed, ready, servers, wiring


class Fleet:
    """A control plane in pieces. Everything it started is gone after the block; machines are not."""

    def __init__(
        self, settings: wiring.Settings, *, services: Sequence[wiring.ServiceName] = wiring.SERVICES
    ) -> None:
        """Make one; nothing is started yet.

        Args:
            settings: As for a stack in one process.
            services: Those started at once; the others by `start`.
        """
        self.settings = settings
        self.folder = data.DataFolder(settings.data)
        self.barrier_dir = self.folder.path / "barriers"
        self._first = tuple(services)
        self._parts = contextlib.AsyncExitStack()
        self._base: base.Base | None = None
        self._running: dict[str, leashed.Leashed] = {}

    async def __aenter__(self) -> Self:
        """Start it.

        Raises:
            errors.InUse: Another stack uses the data folder.
            errors.NotFound: A program it needs is not here.
            errors.NoAnswer: A part did not become ready.
        """
        async with contextlib.AsyncExitStack() as begun:
            self._base = await begun.enter_async_context(base.open_base(self.folder, self.settings))
            self.barrier_dir.mkdir(exist_ok=True)
            begun.push_async_callback(self._stop_all)
            for name in self._first:
                await self.start(name)
            if "gateway" in self._first:
                await self.ready()
            self._parts = begun.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._parts.__aexit__(kind, error, trace)

    @property
    def base(self) -> base.Base:
        if self._base is None:
            raise RuntimeError("a Fleet works inside `async with` only")
        return self._base

    @property
    def nats(self) -> servers.NatsServer:
        return self.base.nats

    @property
    def redis(self) -> servers.RedisServer:
        return self.base.redis

    @property
    def url(self) -> str:
        """Of the gateway."""
        return self.base.addresses.gateway

    def token(self) -> str:
        """The first access token's text, a secret."""
        return self.folder.admin_token_path.read_text(encoding="ascii").strip()

    async def ready(self, *, timeout_s: float = ready.READY_S) -> None:
        """Wait until the gateway says that everything it needs is there."""
        await ready.wait(wiring.HOST, self.base.addresses.gateway_port, timeout_s=timeout_s)

    async def start(
        self, service: wiring.ServiceName, *, name: str = "", barrier: str = ""
    ) -> leashed.Leashed:
        """Start a service.

        Args:
            service: Which.
            name: To run several of one service; the service's own unless given.
            barrier: The place it stops dead at, leaving a file in `barrier_dir`.
        """
        name = name or service
        if name in self._running and not self._running[name].ended.is_set():
            raise RuntimeError(f"{name} runs already")
        given = wiring.told(service, self.settings, self.base.addresses, self.folder, self.base.realm)
        if barrier:
            given |= {"barrier": barrier, "barrier_dir": str(self.barrier_dir)}
        child = leashed.Leashed(
            name,
            [sys.executable, "-m", f"paddock.{service}"],
            env=_bare_environment() | wiring.environment(given),
            log_path=self.log_path(name),
        )
        self._running[name] = child
        return child

    def started(self) -> list[str]:
        """Every name there is a process of, alive or dead."""
        return list(self._running)

    def running(self, name: str) -> leashed.Leashed:
        """The process started last under this name."""
        return self._running[name]

    def log_path(self, name: str) -> pathlib.Path:
        """What it said; starting it again appends."""
        return self.folder.logs_dir / f"{name}.log"

    async def kill(self, name: str) -> None:
        """Kill -9, and wait until it is gone."""
        await self._running[name].kill()

    async def stop(self, name: str) -> int:
        """Ask it to stop in order, and return its exit code."""
        return await self._running[name].stop()

    async def restart(self, service: wiring.ServiceName) -> None:
        """Kill -9 and start."""
        await self.kill(service)
        await self.start(service)

    async def _stop_all(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for child in self._running.values():
                tasks.create_task(child.stop(), name=f"stop-{child.name}")


def _bare_environment() -> dict[str, str]:
    """Ours without what would set up a service behind our back."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PADDOCK_")}
