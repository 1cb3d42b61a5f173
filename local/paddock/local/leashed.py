"""A long-running child of ours: on a leash, its output in a file, its end an event.

For servers and, in fault tests, services. Start them from a thread that lives as long as the stack, the main one:
the kernel's death signal comes at the end of the *thread* that started the child.
"""

import asyncio
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from paddock.local import leash

STOP_S = 20.0
"""Between SIGTERM and SIGKILL; services drain for 15 s at most."""
TAIL_BYTES = 4000


class Leashed:
    """One child that was started. It is in a session of its own, so ctrl-c in a terminal reaches only us."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_path: pathlib.Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start `command`; its output is appended to `log_path`.

        Raises:
            OSError: The launcher could not be started. A command that could not be ends at once instead, with its
                reason in the log.
        """
        self.name = name
        self.log_path = log_path
        self.ended = asyncio.Event()
        descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        self.pid = self._process.pid
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)

    @property
    def exit_code(self) -> int | None:
        """Negative for a signal, None while it runs."""
        return self._process.returncode

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it has ended."""
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def stop(self, grace_s: float = STOP_S) -> int:
        """Ask it to end, kill it after `grace_s`, and return its exit code.

        Cancellation: it is killed, not waited for.
        """
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self.ended.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.ended.wait()
        except asyncio.CancelledError:
            self.send(signal.SIGKILL)
            raise
        return self._process.wait()

    async def kill(self) -> None:
        """End it as a crash would, and wait until it is gone."""
        self.send(signal.SIGKILL)
        await self.ended.wait()

    def log_tail(self) -> str:
        """The end of what it said, for messages about why it ended."""
        with contextlib.suppress(OSError), self.log_path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - TAIL_BYTES))
            return stream.read().decode(errors="replace").strip()
        return ""

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()
        self.ended.set()
