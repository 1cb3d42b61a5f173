"""The daemon's side of the keeper: started when needed, asked, and listened to.

Nobody waits for ever: a keeper that dies or does not answer is `errors.KeeperLost` for everybody who waits. What was asked
may then have been done; the record on disk tells.
"""

import asyncio
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Mapping

from paddock.bus import logs
from paddock.contracts import errors
from paddock.daemon import keeper_protocol

COMMAND = (sys.executable, "-I" if sys.flags.isolated else "-P", "-m", "paddock.daemon", "keep")
"""As `__main__.RUN`."""
START_S = 10.0
ANSWER_S = 30.0
"""A start waits for the disk, and a write for `keeper_protocol.WRITE_S`."""
_BUFFER_BYTES = 16 * 1024
_NOT_PASSED_ON = frozenset({"PADDOCK_BOOTED_FD", "PADDOCK_LAST_EXIT"})

log = logs.get(__name__)

Header = keeper_protocol.Header


class RefusedError(Exception):
    """The keeper answered with an error; `kind` and the members of `error` are in `keeper_protocol`."""

    def __init__(self, error: Header) -> None:
        self.kind = str(error.get("kind", ""))
        self.error = error
        super().__init__(self.kind)


class KeeperLink:
    """One daemon's link to the keeper of its machine; not for two event loops."""

    def __init__(
        self,
        folder: pathlib.Path,
        environ: Mapping[str, str],
        *,
        on_grew: Callable[[Header], None],
        on_ended: Callable[[Header], None],
        on_lost: Callable[[], None],
    ) -> None:
        """Nothing is done yet.

        Args:
            folder: `PADDOCK_HOME`.
            environ: The daemon's own, with PADDOCK_SUPERVISOR when there is one.
            on_grew: Hears `grew` of what is watched; of several at once only the newest.
            on_ended: Hears `ended` of every command, or `failed`.
            on_lost: Hears that the link broke; whoever waits for an answer is told first.
        """
        self._folder = folder
        self._environ = {name: value for name, value in environ.items() if name not in _NOT_PASSED_ON}
        self._on_grew = on_grew
        self._on_ended = on_ended
        self._on_lost = on_lost
        self._starting = asyncio.Lock()
        self._wire: _Wire | None = None
        self._answers: dict[int, asyncio.Future[Header]] = {}
        self._asked = 0
        self._children: dict[int, int] = {}

    @property
    def is_connected(self) -> bool:
        return self._wire is not None

    async def connect(self) -> bool:
        """Connect to the keeper if one runs; False when none does.

        Raises:
            errors.KeeperLost: One may run, and cannot be reached now.
        """
        async with self._starting:
            try:
                return await self._connect()
            except OSError as error:
                why = (error.strerror or "unknown error").lower()
                raise errors.KeeperLost(f"cannot reach the keeper of commands: {why}") from error

    async def start_if_needed(self) -> None:
        """Have a keeper to ask, started now if none runs.

        Raises:
            errors.KeeperLost: None can be started.
        """
        if self._wire is not None:
            return
        try:
            async with self._starting, asyncio.timeout(START_S):
                while not await self._connect():
                    await self._spawn()
        except TimeoutError as error:
            raise errors.KeeperLost("cannot start the keeper of commands in time") from error
        except OSError as error:
            why = (error.strerror or "unknown error").lower()
            raise errors.KeeperLost(f"cannot start the keeper of commands: {why}") from error

    async def ask(
        self, header: Mapping[str, object], blob: bytes = b"", *, timeout_s: float = ANSWER_S
    ) -> Header:
        """Ask the keeper and wait for its answer.

        Raises:
            RefusedError: It answered with an error.
            errors.KeeperLost: There is none, or it was gone or silent before it answered; it may have done it.

        Cancellation: safe; it may have been done.
        """
        wire = self._wire
        if wire is None:
            raise errors.KeeperLost("cannot reach the keeper of commands: none runs")
        self._asked += 1
        number = self._asked
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            wire.send(keeper_protocol.encode({"n": number, **header}, blob))
            async with asyncio.timeout(timeout_s):
                said = await answer
        except TimeoutError as error:
            raise errors.KeeperLost(
                f"cannot reach the keeper of commands: no answer in {timeout_s:g} s"
            ) from error
        finally:
            del self._answers[number]
        error_body = said.get("error")
        if isinstance(error_body, dict):
            raise RefusedError(error_body)
        return dict(said)

    async def close(self) -> None:
        """Leave the keeper to itself; it goes on. `on_lost` is not called."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        self._fail_answers()
        # A keeper that goes on is reaped by whoever inherits it.
        for pidfd in self._children:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
        self._children.clear()

    async def _connect(self) -> bool:
        if self._wire is not None:
            return True
        try:
            folder_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            # The way through our own descriptor: a path of a socket has at most 107 bytes.
            path = f"/proc/self/fd/{folder_fd}/{keeper_protocol.SOCKET_NAME}"
            loop = asyncio.get_running_loop()
            _, wire = await loop.create_unix_connection(lambda: _Wire(self._hear, self._lose), path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        finally:
            os.close(folder_fd)
        if not wire.is_lost:
            self._wire = wire
        return not wire.is_lost

    def _hear(self, messages: list[Header]) -> None:
        """What came at once; of several `grew` of one command the newest is enough."""
        grew: dict[object, Header] = {}
        for message in messages:
            if message.get("is") == "grew":
                grew[message.get("id")] = message
                continue
            self._tell_grew(grew)
            number = message.get("n")
            if message.get("is") in {"ended", "failed"}:
                self._on_ended(message)
            elif isinstance(number, int):
                self._take_answer(number, message)
        self._tell_grew(grew)

    def _take_answer(self, number: int, message: Header) -> None:
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _tell_grew(self, grew: dict[object, Header]) -> None:
        for message in grew.values():
            self._on_grew(message)
        grew.clear()

    def _lose(self, wire: "_Wire") -> None:
        if self._wire is wire:
            self._wire = None
            self._fail_answers()
            self._on_lost()

    def _fail_answers(self) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(errors.KeeperLost("cannot reach the keeper of commands: it is gone"))

    async def _spawn(self) -> None:
        """Start a keeper and return when it is ready, or when another one holds the place.

        Raises:
            errors.KeeperLost: It ended with an error; its log says more.
        """
        ready, pid = self._start_process()
        ended = self._watch_child(pid)
        try:
            if await _line(ready):
                return
        finally:
            os.close(ready)
        code = await asyncio.shield(ended)
        if code != keeper_protocol.EXIT_TAKEN:
            raise errors.KeeperLost("cannot start the keeper of commands", detail=f"exit code {code}")

    def _start_process(self) -> tuple[int, int]:
        """The reading end of its stdout, and its pid."""
        ready, theirs = os.pipe()
        try:
            pid = os.posix_spawn(
                COMMAND[0],
                COMMAND,
                {**self._environ, "PADDOCK_HOME": str(self._folder)},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, theirs, 1),
                ],
                # Of no terminal and no group of ours: nothing that ends us reaches it.
                setsid=True,
                setsigmask=(),
                setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
            )
        except OSError:
            os.close(ready)
            raise
        finally:
            os.close(theirs)
        log.info("keeper_started", pid=pid)
        return ready, pid

    def _watch_child(self, pid: int) -> asyncio.Future[int]:
        """Reap it when it ends, whenever that is."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()
        pidfd = os.pidfd_open(pid)

        def reap() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            del self._children[pidfd]
            _, status = os.waitpid(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            log.info("keeper_ended", pid=pid, exit_code=code)
            if not ended.done():
                ended.set_result(code)

        self._children[pidfd] = pid
        loop.add_reader(pidfd, reap)
        return ended


class _Wire(asyncio.BufferedProtocol):
    """The socket to the keeper.

    With a buffer of its own: asyncio would make one of 256 KiB for each message, an eighth of the way of live output.
    """

    def __init__(self, hear: Callable[[list[Header]], None], lose: "Callable[[_Wire], None]") -> None:
        self._transport: asyncio.Transport | None = None
        self.is_lost = False
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._decoder = keeper_protocol.Decoder()
        self._hear_all = hear
        self._lose = lose

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self._hear_all([header for header, _ in self._decoder.feed(self._buffer[:nbytes])])
        except keeper_protocol.BrokenError as error:
            log.warning("keeper_not_understood", reason=str(error))
            self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_lost = True
        self._lose(self)

    def send(self, message: bytes) -> None:
        if self._transport is not None:
            self._transport.write(message)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def _line(fd: int) -> bytes:
    """What is written to a pipe first; nothing when its writer is gone."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        loop.remove_reader(fd)
        readable.set_result(None)

    loop.add_reader(fd, tell)
    try:
        await readable
    finally:
        loop.remove_reader(fd)
    return os.read(fd, 64)
