"""One kept command, from its fork to the end of the last process that holds its pipes.

Its leader's exit ends it: what the leader wrote is on disk before the end is told, and grandchildren that hold the pipes
delay it by half a second at most. Their later output is still read, so nobody is killed by a closed pipe.
"""

import contextlib
import os
import signal
from collections.abc import Callable

from paddock.daemon import (
    exec_record,
    keeper_drain,
    keeper_feed,
    keeper_loop,
    keeper_plan,
    keeper_spawn,
    output,
)

LINGER_S = 0.5
"""What grandchildren get to close the pipes after the leader's exit."""
RETRY_S = 0.5
Line = dict[str, object]


class Command:
    """One command; `start` it once."""

    def __init__(
        self,
        loop: keeper_loop.Loop,
        exec_id: str,
        *,
        began_at_ms: int,
        record_fd: int,
        folder_fd: int,
        tell: "Callable[[str, Command, Line], None]",
    ) -> None:
        """Args: tell: Hears `started`, `failed`, `grew`, `ended` and, when nothing is left of it here, `gone`."""
        self.id = exec_id
        self.state = "starting"
        self.pid = 0
        self.ticks = 0
        self.is_terminal = False
        self._loop = loop
        self._began_at_ms = began_at_ms
        self._began_uptime_ms = keeper_loop.uptime_ms()
        self._record_fd = record_fd
        self._folder_fd = folder_fd
        self._tell = tell
        self._ends = keeper_spawn.Ends()
        self._pidfd = -1
        self._feed = keeper_feed.Feed(loop, -1, is_terminal=False)
        self._drains: list[keeper_drain.Drain] = []
        self._told: tuple[int, int, str] = (0, 0, "")
        self._status: os.waitid_result | None = None
        self._is_expired = False
        self._has_lingered = False
        self._timers: list[keeper_loop.Timer] = []
        self._waiting: list[Callable[[], None]] = []
        self._unsaved: list[Line] = []
        self._end_line: Line = {}

    def start(
        self,
        plan: keeper_plan.Plan,
        *,
        size: tuple[int, int] | None,
        has_stdin: bool,
        timeout_s: float | None,
        limit_bytes: int,
        files_max: tuple[int, int],
    ) -> None:
        """Start it. Whether it runs is told through `tell`, now or later.

        Args:
            size: Columns and rows of its terminal, None for pipes.
            timeout_s: Seconds until its group is killed.
            limit_bytes: Of each of its outputs that is kept.
        """
        try:
            # A place in our table of descriptors, kept free for the one that must not fail once it runs.
            reserved = os.dup(self._folder_fd)
        except OSError as error:
            self._fail("spawn", error.errno or 0)
            return
        try:
            self._ends = keeper_spawn.start(plan, size=size, has_stdin=has_stdin, files_max=files_max)
        except keeper_plan.FailedError as failed:
            self._fail(failed.what, failed.errno)
            return
        finally:
            os.close(reserved)
        self.pid = self._ends.pid
        self.ticks = _start_ticks(self.pid)
        self._pidfd = os.pidfd_open(self.pid)
        self.is_terminal = size is not None
        self._feed = keeper_feed.Feed(self._loop, self._ends.input, is_terminal=self.is_terminal)
        self._watch(limit_bytes)
        if timeout_s is not None:
            self._timers.append(self._loop.later(timeout_s, self._expire))
        if self._ends.error < 0:
            self._begin()

    @property
    def stdout_bytes(self) -> int:
        return self._drains[0].total_bytes if self._drains else 0

    @property
    def stderr_bytes(self) -> int:
        return self._drains[1].total_bytes if len(self._drains) > 1 else 0

    @property
    def stalled(self) -> str:
        return next((drain.stalled for drain in self._drains if drain.stalled), "")

    def now(self) -> Line:
        """How it is, for `list` and `watch`."""
        end = {"end": self._end_line} if self._end_line else {}
        return {
            **end,
            "state": self.state,
            "pid": self.pid,
            "ticks": self.ticks,
            "stdin": self._feed.accepted_bytes,
            "isStdinOpen": self._feed.is_open,
            "stdout": self.stdout_bytes,
            "stderr": self.stderr_bytes,
            "stalled": self.stalled,
        }

    def write(self, data: bytes, at: int | None, *, eof: bool, answer: keeper_feed.Answer) -> None:
        """Write to its stdin; see `keeper_feed`."""
        self._when_running(lambda: self._feed.write(data, at, eof=eof, answer=answer), answer)

    def forget_writes(self, answers: Callable[[keeper_feed.Answer], bool]) -> None:
        """Give up the writes whose asker is gone."""
        self._feed.drop(answers)

    def resize(self, columns: int, rows: int, answer: keeper_feed.Answer) -> None:
        def change() -> None:
            if not self.is_terminal:
                answer({"error": {"kind": "no_terminal"}})
                return
            keeper_spawn.resize(self._ends.output, columns, rows)
            answer({})

        self._when_running(change, answer)

    def signal(self, number: int, answer: keeper_feed.Answer) -> None:
        """Send a signal to the whole group."""

        def send() -> None:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                answer({"error": {"kind": "not_running"}})
            except PermissionError:
                answer({"error": {"kind": "permission"}})
            except OSError:
                answer({"error": {"kind": "bad_request"}})
            else:
                answer({})

        self._when_running(send, answer)

    def kill_all(self) -> None:
        """Kill what is left of its group, when everything ends."""
        # Its number belongs to nobody else while we have not reaped it, or while its group has members.
        if self.pid and (self._status is None or _start_ticks(self.pid) in {0, self.ticks}):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _watch(self, limit_bytes: int) -> None:
        segment_bytes = output.segment_bytes_for(limit_bytes)
        for stream, fd in (("stdout", self._ends.output), ("stderr", self._ends.output_2)):
            if fd >= 0:
                spool = output.Spool(
                    self._folder_fd, stream, segment_bytes=segment_bytes, limit_bytes=limit_bytes
                )
                self._drains.append(keeper_drain.Drain(self._loop, fd, spool, self._on_output))
        if self._ends.error >= 0:
            self._loop.watch(self._ends.error, self._on_exec)
        self._loop.watch(self._pidfd, self._on_exit)

    def _when_running(self, do: Callable[[], None], answer: keeper_feed.Answer) -> None:
        if self.state == "starting":
            self._waiting.append(lambda: self._when_running(do, answer))
        elif self.state == "running" and self._status is None:
            do()
        else:
            answer({"error": {"kind": "not_running"}})

    def _on_exec(self) -> None:
        """The child is the command now, or said what was in the way."""
        try:
            report = os.read(self._ends.error, 100)
        except BlockingIOError:
            return
        self._loop.forget(self._ends.error)
        os.close(self._ends.error)
        self._ends.error = -1
        if report:
            what, _, number = report.decode().partition(" ")
            self._fail(what, int(number))
        else:
            self._begin()

    def _begin(self) -> None:
        self.state = "running"
        line: Line = {"is": "started", "pid": self.pid, "ticks": self.ticks}
        self._note(line)
        self._tell("started", self, line)
        self._serve_waiting()

    def _fail(self, what: str, number: int) -> None:
        """It cannot be started; the child, if there is one, ends by itself."""
        self.state = "failed"
        line: Line = {"is": "failed", "what": what, "errno": number, "endedAtMs": self._now_ms()}
        self._note(line)
        self._tell("failed", self, line)
        self._serve_waiting()
        self._go_on()

    def _serve_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for do in waiting:
            do()

    def _on_output(self) -> None:
        now = (self.stdout_bytes, self.stderr_bytes, self.stalled)
        if now != self._told and self.state in {"starting", "running"}:
            self._told = now
            self._tell("grew", self, {})
        self._go_on()

    def _on_exit(self) -> None:
        status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG)
        if status is None:
            return
        self._status = status
        if self.state == "starting":
            self._on_exec()
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._cancel_timers()
        if self._ends.terminal >= 0:
            os.close(self._ends.terminal)
            self._ends.terminal = -1
        if self.state == "failed":
            self._go_on()
            return
        for drain in self._drains:
            drain.settle()
        self._timers.append(self._loop.later(LINGER_S, self._on_lingered))
        self._on_output()

    def _on_lingered(self) -> None:
        self._has_lingered = True
        self._go_on()

    def _go_on(self) -> None:
        """Tell the end when it is one, and let go when nothing is left."""
        if self.state == "running" and self._status is not None:
            is_silent = not any(drain.is_open for drain in self._drains)
            if is_silent or (self._has_lingered and all(drain.is_settled for drain in self._drains)):
                self._end(self._status)
        if self._is_spent and not self._unsaved:
            self._let_go()

    @property
    def _is_spent(self) -> bool:
        """Whether no process of it needs us any more."""
        if self.state == "failed":
            return not self.pid or self._pidfd < 0
        return self.state == "ended" and not any(drain.is_open for drain in self._drains)

    def _end(self, status: os.waitid_result) -> None:
        self.state = "ended"
        self._cancel_timers()
        self._feed.close()
        for drain in self._drains:
            drain.let_go()
        is_killed = status.si_code != os.CLD_EXITED
        line = self._end_line = {
            "is": "ended",
            "exitCode": None if is_killed else status.si_status,
            "signal": signal_name(status.si_status) if is_killed else None,
            # It may have ended on its own in the very moment its group was killed.
            "timedOut": self._is_expired and is_killed and status.si_status == signal.SIGKILL,
            "endedAtMs": self._now_ms(),
            "stdoutBytes": self.stdout_bytes,
            "stderrBytes": self.stderr_bytes,
            "stdinBytes": self._feed.accepted_bytes,
        }
        self._note(line)
        self._tell("ended", self, line)

    def _expire(self) -> None:
        self._is_expired = True
        if self.state == "starting":
            os.kill(self.pid, signal.SIGKILL)  # it may have no group yet
        self.kill_all()

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _note(self, line: Line) -> None:
        """Write a line of the record; on a full disk again and again, in order."""
        self._unsaved.append(line)
        if len(self._unsaved) == 1:
            self._save()

    def _save(self) -> None:
        try:
            while self._unsaved:
                exec_record.append(self._record_fd, self._unsaved[0])
                del self._unsaved[0]
        except OSError:
            self._loop.later(RETRY_S, self._save_again)

    def _save_again(self) -> None:
        self._save()
        self._go_on()

    def _let_go(self) -> None:
        """Close everything; nothing of it is here any more."""
        self.state = "gone"
        self._cancel_timers()
        self._feed.close()
        for drain in self._drains:
            drain.close()
        self._ends.input = self._ends.output = self._ends.output_2 = -1
        self._ends.close()
        os.close(self._record_fd)
        os.close(self._folder_fd)
        self._tell("gone", self, {})

    def _now_ms(self) -> int:
        return self._began_at_ms + keeper_loop.uptime_ms() - self._began_uptime_ms


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; real-time signals have only numbers."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def _start_ticks(pid: int) -> int:
    """When the process was started, as `processes.start_ticks` says it; also of one that waits to be reaped."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        text = os.read(fd, 4096)
    except OSError:
        return 0
    finally:
        os.close(fd)
    return int(text.rpartition(b")")[2].split()[19])
