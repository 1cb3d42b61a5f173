"""What is known of one command for as long as it is kept: `record.jsonl` in its folder, a line for each thing that happened.

`accepted` is written before the command is started, then `started`, then `failed` or `ended`; the daemon adds `lost` when
nobody saw the end. One write(2) a line and no fsync: a kill at any point leaves whole lines, or one cut line that readers
pass over. Neither environments nor stdin are ever in it. Only the standard library: the keeper uses it.
"""

# ruff: noqa: PTH118, PTH123 - pathlib would be a third of the keeper's memory
import json
import os

NAME = "record.jsonl"
_BLOCK_BYTES = 4096
_LATER_BYTES = 1024
"""What the lines after the first take at most; see `_padded`."""
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Record:
    """One command as its record tells.

    `is_failed`: it could not be started, for `failed_what` (`cwd`, `user`, `command`, `interpreter`, `spawn`) and
    `failed_errno`. `is_ended`: it ran and `exit_code`, `signal` (a name such as SIGKILL) or `is_lost` says how it ended.
    Neither, and `pid` is 0: whether it was started only its keeper knows.
    """

    __slots__ = (
        "began_at_ms", "command", "digest", "ended_at_ms", "exit_code", "failed_errno", "failed_what", "id", "is_ended",
        "is_failed", "is_lost", "is_timed_out", "limit_bytes", "namespace", "pid", "pty", "segment_bytes", "signal",
        "stderr_bytes", "stdin", "stdin_bytes", "stdout_bytes", "ticks", "timeout_s",
    )  # fmt: skip

    def __init__(self, accepted: "dict[str, object]") -> None:
        """From the first line.

        Raises:
            LookupError, TypeError, ValueError: It is none.
        """
        self.id = str(accepted["id"])
        self.digest = str(accepted["digest"])
        self.command = [str(one) for one in _list(accepted["command"])]
        self.pty = accepted["pty"] is True
        self.stdin = accepted.get("stdin") is True
        self.began_at_ms = _int(accepted["beganAtMs"])
        self.limit_bytes = _int(accepted["limitBytes"])
        self.segment_bytes = _int(accepted["segmentBytes"])
        self.namespace = str(accepted.get("namespace", ""))
        timeout_s = accepted.get("timeoutS")
        self.timeout_s = timeout_s if isinstance(timeout_s, (int, float)) else None
        self.pid = 0
        self.ticks = 0
        self.is_failed = self.is_ended = self.is_timed_out = self.is_lost = False
        self.failed_what = ""
        self.failed_errno = 0
        self.exit_code: int | None = None
        self.signal: str | None = None
        self.ended_at_ms = 0
        self.stdout_bytes = self.stderr_bytes = self.stdin_bytes = 0

    def add(self, line: "dict[str, object]") -> None:
        """What a later line tells, which is also what the keeper says of an end.

        Raises:
            LookupError, TypeError, ValueError: It is no such line.
        """
        kind = line["is"]
        if kind == "started":
            self.pid, self.ticks = _int(line["pid"]), _int(line["ticks"])
        elif kind == "failed":
            self.failed_what, self.failed_errno = str(line["what"]), _int(line["errno"])
            self.ended_at_ms = _int(line["endedAtMs"])
            self.is_failed = True
        elif kind == "ended":
            self._add_end(line)
        elif kind == "lost" and not (self.is_ended or self.is_failed):
            # A keeper that lives after all knows better, whoever wrote first.
            self.ended_at_ms = _int(line["endedAtMs"])
            self.is_lost = self.is_ended = True

    def _add_end(self, line: "dict[str, object]") -> None:
        self.ended_at_ms = _int(line["endedAtMs"])
        code, name = line.get("exitCode"), line.get("signal")
        self.exit_code = _int(code) if code is not None else None
        self.signal = str(name) if name is not None else None
        self.is_timed_out = line.get("timedOut") is True
        self.stdout_bytes = _int(line["stdoutBytes"])
        self.stderr_bytes = _int(line["stderrBytes"])
        self.stdin_bytes = _int(line["stdinBytes"])
        self.is_ended, self.is_lost = True, False


def read(folder: "str | os.PathLike[str]") -> Record | None:
    """The record in this folder; None when there is none or its first line was never whole.

    Raises:
        OSError: It is there and cannot be read.
    """
    try:
        with open(os.path.join(folder, NAME), "rb") as file:
            lines = file.read().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    record = None
    for text in lines:
        try:
            line = json.loads(text)
            if record is not None:
                record.add(line)
            elif line["is"] == "accepted":
                record = Record(line)
        except (LookupError, TypeError, ValueError):
            continue
    return record


def create(folder_fd: int, accepted: "dict[str, object]") -> int:
    """Begin the record with its first line; returns the descriptor for `append`.

    Raises:
        OSError: It could not be written whole; the command must not be started.
    """
    fd = os.open(NAME, _APPEND | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder_fd)
    try:
        append(fd, _padded(_line({"is": "accepted", **accepted})))
    except OSError:
        os.close(fd)
        raise
    return fd


def append(fd: int, line: "bytes | dict[str, object]") -> None:
    """Add a line.

    Raises:
        OSError: The disk is full or refuses; nothing was added.
    """
    text = line if isinstance(line, bytes) else _line(line)
    written = os.write(fd, text)
    while written < len(text):
        try:
            written += os.write(fd, text[written:])
        except OSError:
            os.ftruncate(fd, os.fstat(fd).st_size - written)
            raise


def append_lost(folder: "str | os.PathLike[str]", ended_at_ms: int) -> None:
    """Add that its end was not seen.

    Raises:
        OSError: It could not be written.
    """
    fd = os.open(os.path.join(folder, NAME), _APPEND)
    try:
        # Begins with a line end: what is there may have been cut.
        append(fd, b"\n" + _line({"is": "lost", "endedAtMs": ended_at_ms}))
    finally:
        os.close(fd)


def _line(members: "dict[str, object]") -> bytes:
    return json.dumps(members, separators=(",", ":")).encode() + b"\n"


def _padded(line: bytes) -> bytes:
    """With so much space that the lines after it fit into blocks that are taken already: an end is told on a full disk."""
    free = -len(line) % _BLOCK_BYTES
    return line if free >= _LATER_BYTES else line[:-1] + b" " * (free + 1) + b"\n"


def _int(value: object) -> int:
    if isinstance(value, int):
        return value
    raise TypeError


def _list(value: object) -> "list[object]":
    if isinstance(value, list):
        return value
    raise TypeError
