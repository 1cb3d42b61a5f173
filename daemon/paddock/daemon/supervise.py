"""`paddockd supervise`: the first process of a sandbox, which keeps the daemon alive and ends with everything in it.

Only the standard library, and little of it: it is in memory as long as the machine. It is pid 1 of the sandbox or makes
itself the reaper of all its descendants; it has no child but the daemon and the orphans it inherits, so waiting for any
child steals nothing from anybody. What the daemon started outlives the daemon, never the supervisor.
"""

# ruff: noqa: PTH103, PTH123, PTH208 - pathlib would be a third of our memory
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from time import gmtime, monotonic, strftime

from paddock.daemon import lock

EXIT_STOP, EXIT_RESTART = 0, 75
"""As in `contracts.daemon`, which would bring msgspec along."""
EXIT_TAKEN = 73
GRACE_S = 10.0
"""For the daemon's graceful stop; a second signal ends it."""
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 30.0
STEADY_S = 60.0
"""A daemon that lived so long begins the back-off anew."""
RESTARTS_AT_ONCE = 5
"""Restarts asked for by daemons that lived under a second; more of them in a row are delayed like crashes."""
_REAP_S = 5.0
"""For killed processes to be gone; one stuck in the kernel ends with the sandbox."""
_STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_SIGNALS = {signal.SIGCHLD, *_STOP_SIGNALS}
_PYTHON_IGNORES = {signal.SIGPIPE, signal.SIGXFSZ}
_PR_SET_CHILD_SUBREAPER = 36
_CANNOT_START = 127 << 8
"""As a wait status: what a shell answers for a command it cannot start."""


class Supervisor:
    """Runs one command for as long as the sandbox lives."""

    def __init__(self, command: Sequence[str], *, grace_s: float = GRACE_S) -> None:
        self.reason = "the supervisor failed"
        """Why it ended, once `run` has returned."""
        self._command = list(command)
        self._grace_s = grace_s
        self._daemon = 0
        self._started = 0.0
        self._ended: int | None = None
        self._last_exit = ""
        self._quick_ends = 0

    def run(self) -> int:
        """Supervise until told to stop, or the daemon says that this sandbox is over; returns the exit code."""
        if os.getpid() != 1:
            _become_subreaper()
        # Blocked and waited for: no handler to race with. As pid 1, what is not blocked would not even reach us.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._supervise()
        finally:
            _kill_everything()
        return EXIT_STOP

    def _supervise(self) -> None:
        while True:
            self._start()
            while self._ended is None:
                number = self._wait(None)
                if number in _STOP_SIGNALS:
                    self.reason = f"asked to stop by {_signal_name(number)}"
                    self._stop_daemon()
                    return
            delay_s = self._after(self._ended)
            if delay_s is None or self._pause(delay_s):
                return

    def _start(self) -> None:
        environ = {**os.environ, "PADDOCK_SUPERVISOR": str(os.getpid()), "PADDOCK_LAST_EXIT": self._last_exit}
        self._started = monotonic()
        try:
            self._daemon = os.posix_spawn(
                self._command[0],
                self._command,
                environ,
                # Not our group, so that a Ctrl-C in a terminal reaches the daemon through us only.
                setpgroup=0,
                setsigmask=(),
                setsigdef={*_SIGNALS, *_PYTHON_IGNORES},
            )
        except OSError as error:
            _log("error", "cannot_start_daemon", os.strerror(error.errno or 0))
            self._daemon, self._ended = 0, _CANNOT_START
        else:
            self._ended = None
        _let_go_of_boot()

    def _after(self, status: int) -> float | None:
        """Seconds until the daemon is started again after this end of it; None when it is not."""
        code = os.waitstatus_to_exitcode(status)
        lived_s = monotonic() - self._started
        self._last_exit = f"killed by {_signal_name(-code)}" if code < 0 else f"exit code {code}"
        if code == EXIT_STOP:
            self.reason = "the daemon said that this sandbox is over"
            _log("info", "daemon_done", self.reason)
            return None
        if lived_s >= STEADY_S:
            self._quick_ends = 0
        elif code != EXIT_RESTART or lived_s < 1:
            self._quick_ends += 1
        if code == EXIT_RESTART and self._quick_ends <= RESTARTS_AT_ONCE:
            delay_s = 0.0
        else:
            # Half of it random: many sandboxes of one host die together.
            longest_s = min(BACKOFF_FIRST_S * 2 ** min(self._quick_ends - 1, 16), BACKOFF_MAX_S)
            delay_s = longest_s * (0.5 + os.urandom(1)[0] / 510)
        _log(
            "warning",
            "daemon_ended",
            f"the daemon ended: {self._last_exit}; starting it again in {delay_s:.2f} s",
        )
        return delay_s

    def _pause(self, delay_s: float) -> bool:
        """Wait, reaping; True when told to stop meanwhile."""
        until = monotonic() + delay_s
        while (left_s := until - monotonic()) > 0:
            number = self._wait(left_s)
            if number in _STOP_SIGNALS:
                self.reason = f"asked to stop by {_signal_name(number)}; the last daemon: {self._last_exit}"
                return True
        return False

    def _stop_daemon(self) -> None:
        """Ask the daemon to end; return when it has, or after the grace, or at a second signal."""
        _log("info", "stopping", f"the daemon has {self._grace_s:g} s")
        if self._ended is None:
            os.kill(self._daemon, signal.SIGTERM)
        until = monotonic() + self._grace_s
        while self._ended is None and (left_s := until - monotonic()) > 0:
            if self._wait(left_s) in _STOP_SIGNALS:
                return

    def _wait(self, timeout_s: float | None) -> int:
        """Wait for a signal, reap whoever has ended, and return the signal; 0 when the time is up."""
        if timeout_s is None:
            number = signal.sigwaitinfo(_SIGNALS).si_signo
        else:
            info = signal.sigtimedwait(_SIGNALS, timeout_s)
            number = info.si_signo if info else 0
        for pid, status in _reaped():
            if pid == self._daemon:
                self._ended = status
        return number


def _let_go_of_boot() -> None:
    """Whoever waits for the end of this boot waits for the first daemon now, and for no later one."""
    descriptor = os.environ.pop("PADDOCK_BOOTED_FD", "")
    if descriptor.isdigit():
        with contextlib.suppress(OSError):
            os.close(int(descriptor))


def _reaped() -> Iterator[tuple[int, int]]:
    """Every child that has ended, by pid and wait status. One SIGCHLD may stand for many."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, status


def _kill_everything() -> None:
    """Kill and reap all processes of the sandbox but this one."""
    until = monotonic() + _REAP_S
    while _has_children():
        if monotonic() > until:
            _log("warning", "processes_left", "some processes do not end even when killed")
            return
        if os.getpid() == 1:
            _kill(-1)
        else:
            for pid in _descendants():
                _kill(pid)
        signal.sigtimedwait({signal.SIGCHLD}, 0.05)
        for _ in _reaped():
            pass


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _descendants() -> list[int]:
    """Every process below this one. What forks meanwhile is found in the next round: orphans come to us."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(name))
    found = list(children.get(os.getpid(), []))
    for pid in found:
        found += children.get(pid, [])
    return found


def _become_subreaper() -> None:
    import ctypes  # noqa: PLC0415 - a third of our memory, and pid 1 does without

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        _log("warning", "no_subreaper", os.strerror(ctypes.get_errno()))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _log(level: str, event: str, detail: str) -> None:
    """A line like those of `bus.logs`; all texts are ours, so none needs escaping."""
    at = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime())
    line = f'{{"at":"{at}","level":"{level}","service":"supervise","event":"{event}","detail":"{detail}"}}\n'
    try:
        os.write(sys.stderr.fileno(), line.encode())
    except OSError:
        return  # whoever read our log is gone; the machine goes on


def _note_end(folder: str, sandbox: str, reason: str) -> None:
    """Write `exit.json`, our last word, for whoever asks why the sandbox is gone."""
    text = f'{{"sandboxId":"{sandbox}","reason":"{reason}"}}\n'
    try:
        fd = os.open(f"{folder}/exit.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(fd, text.encode())
    except OSError as error:
        _log("warning", "end_not_noted", os.strerror(error.errno or 0))


def main(folder: str, command: Sequence[str], *, sandbox: str = "", grace_s: float = GRACE_S) -> int:
    """Supervise `command` as the only supervisor of this folder; returns the exit code.

    Args:
        folder: `PADDOCK_HOME`.
        command: The daemon, by its full path.
        sandbox: The sandbox's id, for `exit.json`.
        grace_s: What the daemon gets for a graceful stop.
    """
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        # Held until we end, and not inherited: what survives us holds nothing.
        lock.take(f"{folder}/supervise.lock")
    except lock.TakenError as error:
        _log("error", "cannot_supervise", f"another sandbox runs in this home: {error}")
        return EXIT_TAKEN
    except OSError as error:
        _log("error", "cannot_supervise", f"cannot use {folder}: {error.strerror}")
        return 1
    supervisor = Supervisor(command, grace_s=grace_s)
    code = supervisor.run()
    _note_end(folder, sandbox if sandbox.replace("-", "").isalnum() else "", supervisor.reason)
    return code
