"""Somebody at a terminal: the `paddock` command as a process of its own, on a real pseudo-terminal or on pipes."""

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

WITHIN_S = 20.0
_ON_TERMINAL = (
    "import fcntl,os,sys,termios; fcntl.ioctl(2, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Makes the terminal the process's own, so that its Ctrl-C is a signal and its end is one."""


class Gateway(Protocol):
    """Where one is, and what lets somebody in."""

    @property
    def url(self) -> str: ...
    @property
    def token(self) -> str: ...


class Person:
    """One command on one terminal. `seen` is all that was shown; `terminal` is the end the command has."""

    def __init__(self, keyboard: int, terminal: int, process: asyncio.subprocess.Process) -> None:
        self.seen = b""
        self.terminal = terminal
        self.process = process
        self._keyboard: int | None = keyboard
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(keyboard, self._read)

    def types(self, keys: bytes) -> None:
        assert self._keyboard is not None
        os.write(self._keyboard, keys)

    def resizes(self, columns: int, rows: int) -> None:
        """Change the window, which tells the command by SIGWINCH."""
        set_size(self.terminal, columns, rows)

    def modes(self) -> list[Any]:
        """How the terminal is set."""
        return termios.tcgetattr(self.terminal)

    def is_raw(self) -> bool:
        return not self.modes()[3] & (termios.ICANON | termios.ISIG | termios.ECHO)

    def closes(self) -> None:
        """Close the window."""
        if self._keyboard is not None:
            asyncio.get_running_loop().remove_reader(self._keyboard)
            os.close(self.terminal)
            os.close(self._keyboard)
            self._keyboard = None

    async def sees(self, text: bytes) -> None:
        await self._until(lambda: text in self.seen)

    async def sees_after(self, first: bytes, then: bytes) -> None:
        await self._until(lambda: then in self.seen.partition(first)[2])

    async def ends(self) -> int:
        """Its exit code."""
        async with asyncio.timeout(WITHIN_S):
            code = await self.process.wait()
        if self._keyboard is not None:
            self._read_rest()
        return code

    async def _until(self, is_so: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                while not is_so():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not seen; only {self.seen!r}") from None

    def _read(self) -> None:
        assert self._keyboard is not None
        self.seen += os.read(self._keyboard, 1 << 16)
        self._news.set()

    def _read_rest(self) -> None:
        assert self._keyboard is not None
        os.set_blocking(self._keyboard, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._read()


def environment(gateway: Gateway) -> dict[str, str]:
    return {
        "PADDOCK_URL": gateway.url,
        "PADDOCK_TOKEN": gateway.token,
        "TERM": "vt100",
        "PATH": os.environ["PATH"],
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "paddock.client", *arguments]


def set_size(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextlib.asynccontextmanager
async def at_terminal(
    gateway: Gateway,
    *arguments: str,
    columns: int = 100,
    rows: int = 30,
    stdin: int | None = None,
    stdout: int | None = None,
    env: dict[str, str] | None = None,
) -> AsyncIterator[Person]:
    """Run a command on a new terminal; at the end of the block it is gone."""
    keyboard, terminal = pty.openpty()
    set_size(terminal, columns, rows)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-Sc", _ON_TERMINAL, *command(*arguments)),
        stdin=terminal if stdin is None else stdin,
        stdout=terminal if stdout is None else stdout,
        stderr=terminal,
        env=environment(gateway) | (env or {}),
        start_new_session=True,
    )
    person = Person(keyboard, terminal, process)
    try:
        yield person
    finally:
        person.closes()
        await _gone(process)


@contextlib.asynccontextmanager
async def on_pipes(
    gateway: Gateway, *arguments: str, **settings: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command with pipes for standard input, output and error."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command(*arguments),
        env=environment(gateway),
        **({"stdin": pipe, "stdout": pipe, "stderr": pipe} | settings),
    )
    try:
        yield process
    finally:
        await _gone(process)


async def _gone(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(
                process.pid, signal.SIGKILL
            )  # Process.send_signal would take its exit code from who waits
    async with asyncio.timeout(WITHIN_S):
        await process.wait()
