"""nats-server and redis-server as children: configured from the data folder, started again when they die.

Both listen for this host only and ask for credentials, because sandboxes share the host's network.
"""

import abc
import asyncio
import contextlib
import json
import pathlib
import signal
from collections.abc import AsyncIterator

from paddock.bus import accounts, files, lifecycle, logs
from paddock.contracts import errors
from paddock.local import beside, binaries, data, leashed
from paddock.store import presence

log = logs.get(__name__)

READY_S = 15.0
"""How long a server may take to answer; they take some 20 ms, a full disk or a large store longer."""
POLL_S = 0.005
"""Neither server tells a waiting parent that it listens, so we look."""
RESTART_S = (0.05, 0.2, 1.0, 5.0)
"""Before each restart in a row; a server that stayed up for `STEADY_S` begins anew."""
CHOICES = 5
"""How many ports are tried the first time."""
STEADY_S = 30.0


class Server(abc.ABC):
    """One server on one data folder."""

    name: str

    def __init__(self, folder: data.DataFolder) -> None:
        self._folder = folder
        self._child: leashed.Leashed | None = None
        self.up = asyncio.Event()
        """Set while clients can connect, as far as we know."""

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """Where it is; for Redis with the password."""

    @abc.abstractmethod
    def _command(self) -> list[str]:
        """Write what it reads at its start and say how to start it."""

    @abc.abstractmethod
    async def _is_ready(self, pid: int) -> bool:
        """Whether clients can connect."""

    async def start(self) -> None:
        """Start it and return when clients can connect.

        Raises:
            errors.NotFound: There is no such program here.
            errors.NoAnswer: It ended or did not answer in time; the message carries its last lines.

        Cancellation: it is stopped.
        """
        command = self._command()
        child = leashed.Leashed(self.name, command, log_path=self._folder.logs_dir / f"{self.name}.log")
        self._child = child
        try:
            async with asyncio.timeout(READY_S):
                await self._until_ready(child)
        except TimeoutError:
            child.send(signal.SIGKILL)
            said = child.log_tail()[-1000:]
            raise errors.NoAnswer(
                f"cannot start {self.name}: it did not answer within {READY_S:.0f} s: {said}"
            ) from None
        except BaseException:
            child.send(signal.SIGKILL)
            raise
        self.up.set()

    async def _until_ready(self, child: leashed.Leashed) -> None:
        while not await self._is_ready(child.pid):
            if child.ended.is_set():
                raise errors.NoAnswer(f"cannot start {self.name}: {child.log_tail()[-1000:]}")
            await asyncio.sleep(POLL_S)

    async def keep(self, stop: asyncio.Event) -> None:
        """Start it again whenever it ends, until `stop`; a loop for `lifecycle.run`."""
        clock = asyncio.get_running_loop().time
        failures = 0
        while not stop.is_set():
            since = clock()
            await self._ended_or(stop)
            if stop.is_set():
                return
            self.up.clear()
            failures = 0 if clock() - since > STEADY_S else failures + 1
            log.warning("server_died", server=self.name, exit_code=self._child and self._child.exit_code)
            if not await lifecycle.pause(RESTART_S[min(failures, len(RESTART_S) - 1)], stop):
                return
            with contextlib.suppress(errors.NoAnswer):  # its log says why; we try again, slower each time
                await self.start()

    async def _ended_or(self, stop: asyncio.Event) -> None:
        if self._child is None:
            return
        async with asyncio.TaskGroup() as tasks:
            either = asyncio.Event()
            waits = [tasks.create_task(_tell(event, either)) for event in (self._child.ended, stop)]
            await either.wait()
            for wait in waits:
                wait.cancel()

    async def stop(self) -> None:
        """Ask it to end; nothing happens when it is down."""
        self.up.clear()
        if self._child is not None:
            await self._child.stop()

    async def kill(self) -> None:
        """End it by kill -9, as a crash would."""
        self.up.clear()
        if self._child is not None:
            await self._child.kill()

    @property
    def pid(self) -> int:
        """0 when it was never started."""
        return 0 if self._child is None else self._child.pid


class NatsServer(Server):
    """The bus. Its port is chosen the first time and kept, because machines remember it."""

    name = "nats-server"

    def __init__(self, folder: data.DataFolder, realm: accounts.Realm) -> None:
        super().__init__(folder)
        self._realm = realm
        self._port = folder.nats_port()

    async def start(self) -> None:
        """Start it; the first time on a port of our choice, and on another when somebody was quicker."""
        for tries_left in reversed(range(CHOICES)):
            self._port = self._folder.nats_port() or data.free_port()
            try:
                await super().start()
            except errors.NoAnswer:
                if self._folder.nats_port() or not tries_left:
                    raise
            else:
                self._folder.keep_nats_port(self._port)
                return

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    def _command(self) -> list[str]:
        folder = self._folder.nats_dir
        for left in folder.glob("*.ports"):  # a killed server leaves its ports file, and pids come again
            left.unlink()
        config = folder / "nats.conf"
        files.write_private(config, self._config())
        return [binaries.nats_server(), "-c", str(config)]

    def _config(self) -> str:
        folder = self._folder.nats_dir
        return (
            f'listen: "127.0.0.1:{self._port}"\n'
            'server_name: "paddock"\n'
            f"ports_file_dir: {json.dumps(str(folder))}\n"
            f"jetstream {{ store_dir: {json.dumps(str(folder / 'jetstream'))}, max_mem: 256MB, max_file: 8GB }}\n"
            + self._realm.server_config(folder / "jwt")
        )

    async def _is_ready(self, pid: int) -> bool:
        return _listens(self._folder.nats_dir / f"nats-server_{pid}.ports")


class RedisServer(Server):
    """What may be forgotten: nothing of it is written to disk. It listens on a socket file, on no port."""

    name = "redis-server"

    def __init__(self, folder: data.DataFolder) -> None:
        super().__init__(folder)
        self._socket = folder.redis_socket()

    @property
    def url(self) -> str:
        return f"unix://:{self._folder.redis_password()}@{self._socket}"

    def _command(self) -> list[str]:
        self._socket.unlink(missing_ok=True)
        config = self._folder.redis_dir / "redis.conf"
        files.write_private(config, self._config())
        return [binaries.redis_server(), str(config)]

    def _config(self) -> str:
        return (
            "port 0\n"
            f'unixsocket "{self._socket}"\n'
            "unixsocketperm 600\n"
            f"requirepass {self._folder.redis_password()}\n"
            f'dir "{self._folder.redis_dir}"\n'
            'save ""\nappendonly no\nmaxmemory 256mb\nmaxmemory-policy noeviction\ndaemonize no\n'
        )

    async def _is_ready(self, pid: int) -> bool:
        if not self._socket.exists():
            return False
        async with presence.open_presence(self.url) as beats:
            try:
                await beats.ping()
            except errors.StoreDown:
                return False
        return True


@contextlib.asynccontextmanager
async def kept(*servers: Server) -> AsyncIterator[None]:
    """Start these and keep them up inside the block; at its end they are asked to end.

    Raises:
        errors.NotFound: A program is not here.
        errors.NoAnswer: One did not start.
    """
    async with contextlib.AsyncExitStack() as started:
        for server in servers:
            started.push_async_callback(server.stop)
            await server.start()
        loops = {server.name: server.keep for server in servers}
        await started.enter_async_context(beside.run(loops, drain_s=READY_S))
        yield


async def _tell(event: asyncio.Event, either: asyncio.Event) -> None:
    await event.wait()
    either.set()


def _listens(ports_file: pathlib.Path) -> bool:
    """Whether the server has written down where it listens; it does so once it does."""
    try:
        return bool(json.loads(ports_file.read_text(encoding="utf-8"))["nats"])
    except (FileNotFoundError, ValueError):
        return False
