"""Child processes: started in a session of their own, their output kept within bounds, their end awaited.

Promises: works on asyncio and uvloop alike and near the speed of a bare spawn (the loop's own subprocess code
is not used: uvloop's is five times slower); a time-out kills the whole process group; a grandchild that holds
the pipes delays the answer by one second at most. Output beyond the limit is counted, not kept.
"""

import asyncio
import dataclasses
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from time import monotonic

READ_BYTES = 64 * 1024
"""What a Linux pipe holds; one read empties it."""
LIMIT_BYTES = 256 * 1024
LINGER_S = 1.0
"""How long the answer waits for grandchildren that hold the pipes after the command itself has ended."""
REAP_S = 2.0
"""How long a cancelled run waits for a killed child; one stuck in the kernel is reaped later."""


@dataclasses.dataclass(frozen=True, slots=True)
class Completed:
    """How a child ended and what it said; `exit_code` is None when `signal` (such as `SIGKILL`) ended it.

    `stdout` and `stderr` are the first and the last half of the limit, cut at whole UTF-8 characters.
    """

    exit_code: int | None
    signal: str | None
    timed_out: bool
    stdout: bytes
    stderr: bytes
    stdout_bytes: int
    stderr_bytes: int
    stdout_omitted_bytes: int
    stderr_omitted_bytes: int
    took_ms: int


class _Pipe:
    """One output of a child: the fd we read, and the first and last bytes of what came."""

    __slots__ = ("_head", "_head_max", "_tail", "_tail_max", "fd", "total_bytes")

    def __init__(self, fd: int, limit_bytes: int) -> None:
        self.fd = fd
        self.total_bytes = 0
        self._head = bytearray()
        self._tail = bytearray()
        self._head_max = limit_bytes // 2
        self._tail_max = limit_bytes - self._head_max

    def read(self) -> bool | None:
        """Take what is there: True when something was, None when nothing is yet, False at the end."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return None
        self.total_bytes += len(data)
        self._keep(data)
        return bool(data)

    def _keep(self, data: bytes) -> None:
        room = self._head_max - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail += data
            # Cut only when twice too long, so that a flood costs one copy a half and not one a read.
            if len(self._tail) > 2 * self._tail_max + READ_BYTES:
                del self._tail[: len(self._tail) - self._tail_max]

    def kept(self) -> bytes:
        tail = bytes(self._tail[max(0, len(self._tail) - self._tail_max) :])
        if len(self._head) + len(tail) == self.total_bytes:
            return bytes(self._head) + tail
        return _whole_head(bytes(self._head)) + _whole_tail(tail)


class Child:
    """One running child, made by `start`; it is reaped whether or not anybody awaits `wait`."""

    __slots__ = (
        "_err", "_input", "_linger", "_loop", "_out", "_pidfd", "_process", "_started", "_stdin_fd",
        "_timed_out", "_timer", "ended", "pid",
    )  # fmt: skip

    def __init__(
        self, process: "subprocess.Popen[bytes]", out_fd: int, err_fd: int, stdin: bytes, limit_bytes: int
    ) -> None:
        """Only `start` calls this."""
        self._loop = asyncio.get_running_loop()
        self._started = monotonic()
        self._process = process
        self.pid = process.pid
        self.ended: asyncio.Future[Completed] = self._loop.create_future()
        """Cancelling it would lose the answer; await `wait` instead."""
        self._out = _Pipe(out_fd, limit_bytes)
        self._err = _Pipe(err_fd, limit_bytes)
        self._timed_out = False
        self._timer: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._input = memoryview(stdin)
        self._stdin_fd = -1
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)
        for pipe in (self._out, self._err):
            self._loop.add_reader(pipe.fd, self._on_output, pipe)

    async def wait(self, timeout_s: float | None = None) -> Completed | None:
        """How the child ended; None when it still runs after `timeout_s`.

        Cancellation: safe; the child runs on.
        """
        if not self.ended.done():
            await asyncio.wait((self.ended,), timeout=timeout_s)
        return self.ended.result() if self.ended.done() else None

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """Send a signal to the child's whole process group; False when the child itself has ended."""
        # Until it is reaped its number cannot be given to another process, nor its group's.
        if self._process.returncode is not None:
            return False
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            # A setuid child is not ours to kill; a zombie's group may already be empty.
            return False
        return True

    def expire_after(self, timeout_s: float) -> None:
        """Kill the whole group when `timeout_s` have passed, and say so in the answer."""
        self._timer = self._loop.call_later(timeout_s, self._expire)

    def feed(self, fd: int) -> None:
        """Write the input to the child's stdin, as fast as it reads."""
        os.set_blocking(fd, False)
        self._stdin_fd = fd
        self._loop.add_writer(fd, self._on_writable)

    def _expire(self) -> None:
        self._timed_out = self.kill()

    def _on_writable(self) -> None:
        try:
            self._input = self._input[os.write(self._stdin_fd, self._input[:READ_BYTES]) :]
        except BlockingIOError:
            return
        except OSError:
            # It closed its stdin; what it did not read is its own affair.
            self._input = self._input[:0]
        if not self._input:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self._stdin_fd >= 0:
            self._loop.remove_writer(self._stdin_fd)
            os.close(self._stdin_fd)
            self._stdin_fd = -1

    def _on_output(self, pipe: _Pipe) -> None:
        if pipe.read() is False:
            self._close(pipe)
            self._finish_when_silent()

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()
        if self._timer is not None:
            self._timer.cancel()
        self._close_stdin()
        for pipe in (self._out, self._err):
            # What the command itself wrote is in the pipe by now; a grandchild that floods it cannot keep us.
            for _ in range(2):
                if pipe.fd >= 0 and pipe.read() is False:
                    self._close(pipe)
        self._linger = self._loop.call_later(LINGER_S, self._finish)
        self._finish_when_silent()

    def _finish_when_silent(self) -> None:
        if self._linger is not None and self._out.fd < 0 and self._err.fd < 0:
            self._linger.cancel()
            self._finish()

    def _finish(self) -> None:
        """Answer, and go on emptying the pipes of grandchildren, whom a closed one would kill."""
        out, err = self._out, self._err
        for pipe in (out, err):
            if pipe.fd >= 0:
                self._loop.add_reader(pipe.fd, _discard, self._loop, pipe.fd)
        if self.ended.done():
            return
        code = self._process.returncode
        stdout, stderr = out.kept(), err.kept()
        self.ended.set_result(
            Completed(
                exit_code=code if code >= 0 else None,
                signal=signal_name(-code) if code < 0 else None,
                # It may have ended on its own in the very moment the group was killed.
                timed_out=self._timed_out and code == -signal.SIGKILL,
                stdout=stdout,
                stderr=stderr,
                stdout_bytes=out.total_bytes,
                stderr_bytes=err.total_bytes,
                stdout_omitted_bytes=out.total_bytes - len(stdout),
                stderr_omitted_bytes=err.total_bytes - len(stderr),
                took_ms=round((monotonic() - self._started) * 1000),
            )
        )

    def _close(self, pipe: _Pipe) -> None:
        self._loop.remove_reader(pipe.fd)
        os.close(pipe.fd)
        pipe.fd = -1


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: bytes = b"",
    limit_bytes: int = LIMIT_BYTES,
) -> Child:
    """Start `argv` in its own session; blocks the loop for the spawn itself, about a millisecond.

    Args:
        env: The whole environment, None for ours; its PATH is where `argv[0]` is looked for.
        limit_bytes: Of stdout and of stderr that is kept.

    Raises:
        OSError: It could not be started; `filename` says whether `cwd` or the command is at fault.
        ValueError: An argument or a variable cannot be passed to a process (NUL byte, `=` in a name).
    """
    fds = _pipes(3 if stdin else 2)
    out_read, out_write, err_read, err_write, *for_stdin = fds
    stdin_read, stdin_write = for_stdin or (subprocess.DEVNULL, -1)
    ours = (out_read, err_read, stdin_write)
    theirs = (out_write, err_write, stdin_read)
    started = False
    try:
        process = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=stdin_read,
            stdout=out_write,
            stderr=err_write,
            start_new_session=True,
        )
        started = True
    finally:
        for fd in theirs if started else (*theirs, *ours):
            if fd >= 0:
                os.close(fd)
    os.set_blocking(out_read, False)
    os.set_blocking(err_read, False)
    child = Child(process, out_read, err_read, stdin, limit_bytes)
    if stdin_write >= 0:
        child.feed(stdin_write)
    return child


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: bytes = b"",
    limit_bytes: int = LIMIT_BYTES,
) -> Completed:
    """Run `argv` as `start` does, to its end, or kill its whole process group after `timeout_s`.

    Cancellation: the process group is killed and reaped.
    """
    child = start(argv, env=env, cwd=cwd, stdin=stdin, limit_bytes=limit_bytes)
    child.expire_after(timeout_s)
    try:
        completed = await child.wait()
    finally:
        if not child.ended.done() and child.kill():
            await child.wait(REAP_S)
    return completed or child.ended.result()


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; real-time signals have only numbers."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def _pipes(count: int) -> list[int]:
    """So many pipes, each its reading and its writing end; none when one cannot be had."""
    fds: list[int] = []
    try:
        for _ in range(count):
            fds += os.pipe()
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    return fds


def _discard(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    try:
        if os.read(fd, READ_BYTES):
            return
    except BlockingIOError:
        return
    loop.remove_reader(fd)
    os.close(fd)


def _whole_head(data: bytes) -> bytes:
    """`data` without a character cut off at its end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:  # noqa: PLR2004 - UTF-8: 10xxxxxx goes on, 110, 1110 and 11110 begin 2, 3 and 4 bytes
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1  # noqa: PLR2004
            return data[:-back] if length > back else data
    return data


def _whole_tail(data: bytes) -> bytes:
    """`data` without the end of a character at its beginning."""
    start_at = 0
    while start_at < min(3, len(data)) and data[start_at] & 0xC0 == 0x80:  # noqa: PLR2004
        start_at += 1
    return data[start_at:]
