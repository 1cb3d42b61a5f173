"""`tool.execCommand`: start a command, and say truthfully how it ended or why it could not be started.

No shell. Never an invented exit code: what could not be started is a fault, what a signal ended has no code.
"""

import errno
import os
import pathlib
from collections.abc import Mapping, Sequence

from paddock.bus import children
from paddock.contracts import daemon, errors
from paddock.daemon import environment, paths


def start(
    params: daemon.ExecCommandParams, surroundings: environment.Environment, home: str
) -> children.Child:
    """Start the command; its timeout runs from now.

    Raises:
        errors.Fault: It could not be started.
    """
    program = params.command[0]
    check(params.command, params.env)
    cwd = paths.resolve(params.cwd, home)
    try:
        child = children.start(
            params.command,
            env=surroundings.now(params.env),
            cwd=cwd,
            stdin=params.stdin.encode(),
            limit_bytes=params.output_limit_bytes,
        )
    except ValueError as error:
        # Python's own message may quote a variable's value.
        raise unusable() from error
    except OSError as error:
        raise _fault(error, program, cwd) from error
    child.expire_after(params.timeout_s)
    return child


def result(completed: children.Completed) -> daemon.ExecCommandResult:
    """The answer for a command that ended."""
    return daemon.ExecCommandResult(
        exit_code=completed.exit_code,
        stdout=completed.stdout.decode("utf-8", "replace"),
        stderr=completed.stderr.decode("utf-8", "replace"),
        signal=completed.signal,
        timed_out=completed.timed_out,
        stdout_bytes=completed.stdout_bytes,
        stderr_bytes=completed.stderr_bytes,
        stdout_omitted_bytes=completed.stdout_omitted_bytes,
        stderr_omitted_bytes=completed.stderr_omitted_bytes,
        took_ms=completed.took_ms,
    )


def check(command: Sequence[str], env: Mapping[str, str]) -> None:
    """Refuse what no machine could start.

    Raises:
        errors.InvalidParams: Always the same for the same.
    """
    if not command[0]:
        raise errors.InvalidParams("cannot run an empty command")
    if "" in env:
        raise errors.InvalidParams("cannot run this command: a variable has no name")


def unusable() -> errors.InvalidParams:
    """For what a process cannot be given; which it was might be a secret."""
    return errors.InvalidParams(
        "cannot run this command: an argument or variable holds a NUL byte or is not valid Unicode,"
        " or a variable's name holds '='"
    )


def refusal(number: int, program: str, *, is_interpreter_missing: bool = False) -> errors.Fault:
    """The fault for a command that the machine would not start, by the errno it gave."""
    if number in {errno.ENOENT, errno.ENOTDIR}:
        if is_interpreter_missing:
            return errors.CommandNotFound(f"cannot run {program!r}: the interpreter it names does not exist")
        return errors.CommandNotFound(f"cannot run {program!r}: there is no such command")
    if number in {errno.EACCES, errno.EPERM}:
        return errors.PermissionDenied(f"cannot run {program!r}: it may not be executed")
    if number == errno.ENAMETOOLONG:
        return errors.CommandNotFound("cannot run this command: its name is too long to be one")
    if number == errno.E2BIG:
        return errors.PayloadTooLarge(
            f"cannot run {program!r}: its arguments and environment are longer than the machine allows"
        )
    return errors.CannotSpawn(f"cannot run {program!r}: {os.strerror(number).lower()}")


def _fault(error: OSError, program: str, cwd: str) -> errors.Fault:
    if error.filename == cwd and not _can_enter(cwd):
        return paths.fault(error, f"enter {cwd}")
    # A name without a slash is looked for on PATH only, whatever is called so in the folder.
    is_there = "/" in program and os.access(pathlib.Path(cwd, program), os.F_OK)
    return refusal(error.errno or 0, program, is_interpreter_missing=is_there)


def _can_enter(folder: str) -> bool:
    # In this order: is_dir raises for a name that is too long, access says no.
    return os.access(folder, os.X_OK) and pathlib.Path(folder).is_dir()
