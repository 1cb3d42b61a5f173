"""Starting one command from the keeper: its pipes or its terminal, and a process.

Most are started by posix_spawn, which is more than twice as quick as a fork; the keeper's own working folder and limit of
open files are the command's for that moment. The others are in `keeper_fork`.
"""

import contextlib
import fcntl
import os
import resource
import struct
import termios

from paddock.daemon import keeper_fork, keeper_plan

_IUTF8 = 0o40000
"""Of a terminal's input: erasing takes whole characters. Python has no name for it."""
_SIZE = struct.Struct("HHHH")


class Ends:
    """Our descriptors of one command; -1 is none."""

    __slots__ = ("error", "input", "output", "output_2", "pid", "terminal")

    def __init__(self) -> None:
        self.pid = 0
        self.error = -1
        """While it is open nobody knows whether the command runs; see `keeper_fork`."""
        self.input = self.output = self.output_2 = -1
        self.terminal = -1
        """The command's side of its terminal, held so that the terminal stays while the command has it closed."""

    def close(self) -> None:
        for fd in (self.error, self.input, self.output, self.output_2, self.terminal):
            if fd >= 0:
                os.close(fd)
        self.error = self.input = self.output = self.output_2 = self.terminal = -1


def start(
    plan: keeper_plan.Plan, *, size: tuple[int, int] | None, has_stdin: bool, files_max: tuple[int, int]
) -> Ends:
    """Start the command.

    Args:
        size: Columns and rows of its terminal; None for pipes.
        has_stdin: Whether its stdin is a pipe; without, and without a terminal, it is empty.
        files_max: Its limits of open files, soft and hard.

    Raises:
        keeper_plan.FailedError: It cannot be started. A forked one may say so later, through `error`.
    """
    ours = Ends()
    theirs: list[int] = []
    try:
        fds = _open_terminal(ours, size, plan.uid) if size else _open_pipes(ours, theirs, has_stdin=has_stdin)
        if size or plan.uid is not None:
            ours.error, error_fd = _pipe(theirs)
            ours.pid = keeper_fork.start(plan, fds, error_fd, is_terminal=bool(size), files_max=files_max)
        else:
            ours.pid = _spawn(plan, fds, files_max)
    except OSError as error:
        ours.close()
        raise keeper_plan.FailedError("spawn", error.errno or 0) from error
    except keeper_plan.FailedError:
        ours.close()
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    for fd in (ours.error, ours.input, ours.output, ours.output_2):
        if fd >= 0:
            os.set_blocking(fd, False)
    return ours


def resize(terminal_fd: int, columns: int, rows: int) -> None:
    """Change a terminal's size; its foreground is told."""
    fcntl.ioctl(terminal_fd, termios.TIOCSWINSZ, _SIZE.pack(rows, columns, 0, 0))


def _spawn(plan: keeper_plan.Plan, fds: tuple[int, int, int], files_max: tuple[int, int]) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds)]

    def execute(file: bytes) -> int:
        return os.posix_spawn(
            file,
            plan.argv,
            plan.env,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=keeper_fork.NOT_DEFAULT,
        )

    ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        os.chdir(plan.cwd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(files_max[0], ours[1]), ours[1]))
        return plan.run(execute)
    except OSError as error:
        raise keeper_plan.FailedError("cwd", error.errno or 0) from error
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, ours)
        os.chdir("/")


def _pipe(theirs: list[int], *, inward: bool = False) -> tuple[int, int]:
    """A pipe, reading and writing end; the command's end is noted to be closed here."""
    ends = os.pipe()
    theirs.append(ends[0] if inward else ends[1])
    return ends


def _open_pipes(ours: Ends, theirs: list[int], *, has_stdin: bool) -> tuple[int, int, int]:
    if has_stdin:
        stdin, ours.input = _pipe(theirs, inward=True)
    else:
        stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        theirs.append(stdin)
    ours.output, stdout = _pipe(theirs)
    ours.output_2, stderr = _pipe(theirs)
    return stdin, stdout, stderr


def _open_terminal(ours: Ends, size: tuple[int, int], uid: int | None) -> tuple[int, int, int]:
    ours.output, ours.terminal = os.openpty()
    # A descriptor of its own for what is typed, so that both directions can be waited for apart.
    ours.input = os.dup(ours.output)
    resize(ours.output, *size)
    with contextlib.suppress(termios.error):
        modes = termios.tcgetattr(ours.terminal)
        modes[0] |= _IUTF8
        termios.tcsetattr(ours.terminal, termios.TCSANOW, modes)
    if uid is not None:
        with contextlib.suppress(OSError):  # only its name in /dev would be closed to the user
            os.fchown(ours.terminal, uid, -1)
    return ours.terminal, ours.terminal, ours.terminal
