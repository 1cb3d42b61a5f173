"""Starting a command by a fork: what posix_spawn cannot do, another user and a terminal of one's own.

The keeper has one thread and little memory, so all of Python works in the child. Until the exec a pipe stays open that says
what failed; its end says that the command runs.
"""

import fcntl
import os
import resource
import signal
import termios

from paddock.daemon import keeper_plan

NOT_RUN = 127
"""The exit code of a child that could not become the command; nobody is told of it."""
NOT_DEFAULT = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that Python and the keeper treat in their own way, and commands must not."""


def start(
    plan: keeper_plan.Plan,
    fds: tuple[int, int, int],
    error_fd: int,
    *,
    is_terminal: bool,
    files_max: tuple[int, int],
) -> int:
    """Fork the child that becomes the command; returns its pid.

    Args:
        fds: Its stdin, stdout and stderr.
        error_fd: What failed is written here as `what errno`.
        is_terminal: Whether `fds` are the terminal that shall be its own.
        files_max: Its limits of open files, soft and hard.

    Raises:
        OSError: The machine has no process left.
    """
    pid = os.fork()
    if not pid:
        _become(plan, fds, error_fd, is_terminal=is_terminal, files_max=files_max)
    return pid


def _become(
    plan: keeper_plan.Plan,
    fds: tuple[int, int, int],
    error_fd: int,
    *,
    is_terminal: bool,
    files_max: tuple[int, int],
) -> None:
    """In the child: become the command, or say what was in the way. Never returns."""
    report = "spawn 0"
    step = "spawn"
    try:
        os.setsid()
        for number in NOT_DEFAULT:
            signal.signal(number, signal.SIG_DFL)
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
        if is_terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        resource.setrlimit(resource.RLIMIT_NOFILE, files_max)
        step = "user"
        _switch_user(plan)
        step = "cwd"
        os.chdir(plan.cwd)
        plan.run(lambda file: os.execve(file, plan.argv, plan.env))  # noqa: S606
    except OSError as error:
        report = f"{step} {error.errno}"
    except keeper_plan.FailedError as failed:
        report = str(failed)
    finally:
        # Whatever happened: nothing of the keeper goes on in here.
        try:
            os.write(error_fd, report.encode())
        finally:
            os._exit(NOT_RUN)


def _switch_user(plan: keeper_plan.Plan) -> None:
    if plan.uid is not None and plan.gid is not None:
        os.setgroups(plan.groups)
        os.setresgid(plan.gid, plan.gid, plan.gid)
        os.setresuid(plan.uid, plan.uid, plan.uid)
