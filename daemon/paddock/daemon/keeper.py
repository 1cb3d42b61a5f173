"""`paddockd keep`: the parent of every command that is to outlive the daemon.

One a machine, started by the daemon with the first command; it ends when nothing has run for minutes. It owns pipes,
terminals, time-outs and exit codes and writes output to disk; daemons come and go. It reaps its own children by number and
nobody else's. When the supervisor is gone, it kills what it keeps and ends. Only the standard library, and little of it.
"""

# ruff: noqa: PTH103 - pathlib would be a third of our memory
import contextlib
import functools
import gc
import os
import resource
import signal
import socket
import sys
from time import gmtime, strftime

from paddock.daemon import (
    exec_record,
    keeper_command,
    keeper_door,
    keeper_feed,
    keeper_loop,
    keeper_order,
    keeper_plan,
    keeper_protocol,
    lock,
)

IDLE_S = 300.0
"""So long it stays without a command: a Python that is there answers fifty times sooner."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_SIGNAL_MAX = 64
_STDIO_MAX = 2


class Keeper:
    """Keeps commands in one folder; `run` it."""

    def __init__(self, folder: str, *, supervisor_pid: int = 0, idle_s: float = IDLE_S) -> None:
        """Open the door.

        Args:
            folder: `PADDOCK_HOME`, which is there.
            supervisor_pid: Whose end is ours; 0 is nobody.

        Raises:
            OSError: The folder cannot be used, or the supervisor is gone.
        """
        self._idle_s = idle_s
        self._loop = keeper_loop.Loop()
        self._commands: dict[str, keeper_command.Command] = {}
        # Also those whose folder is removed and whose name is used again, while grandchildren hold their pipes.
        self._kept: set[keeper_command.Command] = set()
        self._connections: set[keeper_door.Connection] = set()
        self._is_over = False
        self._files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._files_max[1], self._files_max[1]))
        if supervisor_pid:
            self._loop.watch(os.pidfd_open(supervisor_pid), self._stop)
        self._folder_fd = os.open(folder, _FOLDER & ~os.O_NOFOLLOW)
        self._door = keeper_door.Door(self._loop, self._folder_fd, self._welcome)
        self._idle = self._loop.later(idle_s, self._stop)

    def run(self) -> None:
        """Keep commands until there is nothing to keep, or the supervisor is gone."""
        try:
            while not self._is_over:
                self._loop.turn()
        finally:
            self._door.close()
            for command in self._kept:
                command.kill_all()

    def _stop(self) -> None:
        self._is_over = True

    def _welcome(self, connected: socket.socket) -> None:
        self._connections.add(
            keeper_door.Connection(self._loop, connected, self._serve, self._totals, self._leave)
        )

    def _leave(self, connection: keeper_door.Connection) -> None:
        self._connections.discard(connection)
        for command in self._kept:
            command.forget_writes(functools.partial(_answers_to, connection))

    def _serve(self, connection: keeper_door.Connection, header: keeper_protocol.Header, blob: bytes) -> None:
        answer = functools.partial(_answer, connection, header.get("n"))
        try:
            error = self._do(connection, header, blob, answer)
        except (LookupError, TypeError, ValueError, OverflowError):
            error = {"kind": "bad_request"}
        if error is not None:
            answer({"error": error})

    def _do(
        self,
        connection: keeper_door.Connection,
        header: keeper_protocol.Header,
        blob: bytes,
        answer: keeper_feed.Answer,
    ) -> keeper_protocol.Header | None:
        """Do what is asked; returns the error, or None when it is answered, now or later."""
        what = header["do"]
        if what == "ping":
            answer({"pid": os.getpid()})
        elif what == "list":
            answer({"executions": self._list(header.get("id"))})
        elif what == "start":
            return self._start(header, answer)
        elif what == "unwatch":
            connection.watched.discard(keeper_order.text(header["id"]))
            answer({})
        else:
            command = self._commands.get(keeper_order.text(header["id"]))
            if command is None:
                return {"kind": "unknown"}
            return _ask(command, connection, header, blob, answer)
        return None

    def _list(self, only: object) -> keeper_protocol.Header:
        return {
            exec_id: command.now()
            for exec_id, command in self._commands.items()
            if only is None or only == exec_id
        }

    def _start(
        self, header: keeper_protocol.Header, answer: keeper_feed.Answer
    ) -> keeper_protocol.Header | None:
        order = keeper_order.Order(header)
        try:
            plan = order.plan()
        except keeper_plan.BadRequestError as error:
            return {"kind": "invalid", "what": error.what}
        try:
            folder_fd, record_fd = self._accept(order.id, order.accepted())
        except FileExistsError:
            return {"kind": "exists"}
        except OSError as error:
            return {"kind": "disk", "errno": error.errno}
        command = keeper_command.Command(
            self._loop,
            order.id,
            began_at_ms=order.began_at_ms,
            record_fd=record_fd,
            folder_fd=folder_fd,
            tell=functools.partial(self._hear, answer),
        )
        self._commands[order.id] = command
        self._kept.add(command)
        self._idle.cancel()
        command.start(
            plan,
            size=order.size,
            has_stdin=order.stdin,
            timeout_s=order.timeout_s,
            limit_bytes=order.limit_bytes,
            files_max=self._files_max,
        )
        return None

    def _accept(self, exec_id: str, accepted: keeper_protocol.Header) -> tuple[int, int]:
        """Write that it is accepted; returns its folder and its record. Nothing is left when that fails."""
        name = f"{keeper_protocol.FOLDER_NAME}/{exec_id}"
        self._make_folder(name, exec_id)
        folder_fd = -1
        try:
            folder_fd = os.open(name, _FOLDER, dir_fd=self._folder_fd)
            return folder_fd, exec_record.create(folder_fd, accepted)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(f"{name}/{exec_record.NAME}", dir_fd=self._folder_fd)
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=self._folder_fd)
            if folder_fd >= 0:
                os.close(folder_fd)
            raise

    def _make_folder(self, name: str, exec_id: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=self._folder_fd)
        except FileNotFoundError:
            os.mkdir(keeper_protocol.FOLDER_NAME, 0o700, dir_fd=self._folder_fd)
            os.mkdir(name, 0o700, dir_fd=self._folder_fd)
        except FileExistsError:
            # A keeper that was killed before its record had a line has accepted nothing.
            is_known = exec_id in self._commands
            if is_known or exec_record.read(f"/proc/self/fd/{self._folder_fd}/{name}") is not None:
                raise
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{name}/{exec_record.NAME}", dir_fd=self._folder_fd)
            os.rmdir(name, dir_fd=self._folder_fd)
            os.mkdir(name, 0o700, dir_fd=self._folder_fd)

    def _hear(
        self,
        answer: keeper_feed.Answer,
        what: str,
        command: keeper_command.Command,
        line: keeper_command.Line,
    ) -> None:
        """Pass on what a command tells, to whoever started it and to whoever wants to know."""
        if what == "grew":
            for connection in self._connections:
                if command.id in connection.watched:
                    connection.tell_totals(command.id)
        elif what == "started":
            answer({"pid": line["pid"], "ticks": line["ticks"]})
        elif what == "failed":
            # To everybody, as an end: whoever asked for it may have another daemon after it.
            self._tell_all(command, line)
            answer({"error": {"kind": "failed", "what": line["what"], "errno": line["errno"]}})
        elif what == "ended":
            self._tell_all(command, line)
        elif what == "gone":
            self._forget(command)

    def _tell_all(self, command: keeper_command.Command, line: keeper_command.Line) -> None:
        for connection in self._connections:
            connection.watched.discard(command.id)
            connection.tell({"id": command.id, **line})

    def _forget(self, command: keeper_command.Command) -> None:
        self._kept.discard(command)
        if self._commands.get(command.id) is command:
            del self._commands[command.id]
        if not self._kept:
            self._idle = self._loop.later(self._idle_s, self._stop)

    def _totals(self, exec_id: str) -> keeper_protocol.Header:
        command = self._commands.get(exec_id)
        if command is None:
            return {}
        return {
            "is": "grew",
            "id": exec_id,
            "stdout": command.stdout_bytes,
            "stderr": command.stderr_bytes,
            "stalled": command.stalled,
        }


def _ask(
    command: keeper_command.Command,
    connection: keeper_door.Connection,
    header: keeper_protocol.Header,
    blob: bytes,
    answer: keeper_feed.Answer,
) -> keeper_protocol.Header | None:
    """What can be asked about one command."""
    what = header["do"]
    if what == "write":
        at = header.get("offset")
        command.write(
            blob,
            None if at is None else keeper_order.number(at),
            eof=header.get("eof") is True,
            answer=answer,
        )
    elif what == "resize":
        command.resize(keeper_order.size(header, "columns"), keeper_order.size(header, "rows"), answer)
    elif what == "signal":
        number = keeper_order.number(header["number"])
        if not 0 < number <= _SIGNAL_MAX:
            raise ValueError
        command.signal(number, answer)
    elif what == "watch":
        if command.state != "ended":
            connection.watched.add(command.id)
        answer(command.now())
    else:
        return {"kind": "bad_request"}
    return None


def _answer(connection: keeper_door.Connection, number: object, members: keeper_protocol.Header) -> None:
    connection.tell({"n": number, **members})


def _answers_to(connection: keeper_door.Connection, answer: keeper_feed.Answer) -> bool:
    return isinstance(answer, functools.partial) and answer.args[0] is connection


def _log(level: str, event: str, detail: str) -> None:
    """A line like those of `bus.logs`; all texts are ours, so none needs escaping."""
    at = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime())
    line = f'{{"at":"{at}","level":"{level}","service":"keep","event":"{event}","detail":"{detail}"}}\n'
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), line.encode())


def main(folder: str, *, supervisor_pid: int = 0, idle_s: float = IDLE_S) -> int:
    """Be the only keeper of this folder; returns the exit code.

    Says `ready` on stdout when the door is open. SIGTERM ends it with all it keeps; other signals of terminals do nothing.
    """
    # Children get 0, 1 and 2 from us: nothing of ours may have one of these numbers.
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDIO_MAX:
        pass
    os.chdir("/")  # as after every start
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would take exit codes away
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        lock.take(f"{folder}/{keeper_protocol.LOCK_NAME}")
        keeper = Keeper(folder, supervisor_pid=supervisor_pid, idle_s=idle_s)
    except lock.TakenError as error:
        _log("info", "cannot_keep", str(error))
        return keeper_protocol.EXIT_TAKEN
    except OSError as error:
        _log("error", "cannot_keep", f"cannot use {folder}: {error.strerror}")
        return 1
    with contextlib.suppress(OSError):
        os.write(1, b"ready\n")
    os.dup2(fd, 1)
    os.close(fd)
    gc.collect()
    gc.freeze()  # what is there now stays; counting it again would copy pages that children share
    keeper.run()
    return 0
