"""The tools as commands: `paddockd tool exec-command git status` does here what a call does over the bus.

Same environment, same rules, same errors. Relative paths and the working directory are those of the terminal.
"""

import asyncio
import base64
import os.path
import pathlib
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from paddock.bus import children
from paddock.contracts import daemon, errors
from paddock.daemon import environment, exec_command, read_file, settings, write_file

USAGE = """\
usage: paddockd tool exec-command [--timeout SECONDS] COMMAND [ARGUMENT...]
       paddockd tool write-file [--mode OCTAL] PATH < FILE
       paddockd tool read-file PATH
"""
EXIT_USAGE, EXIT_FAULT, EXIT_TIMED_OUT, EXIT_CANNOT_RUN, EXIT_NOT_FOUND = 2, 1, 124, 126, 127
EXIT_SIGNAL = 128
"""Plus the number of the signal that ended the command."""


NumberT = TypeVar("NumberT", int, float)
ParamsT = TypeVar("ParamsT", bound=msgspec.Struct)


class UsageError(Exception):
    """The command line makes no sense."""


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Carry out one tool; returns the exit code, which is the command's own where there is one."""
    try:
        name, *rest = arguments
        return _TOOLS[name](rest, environ)
    except (UsageError, KeyError, ValueError) as error:
        sys.stderr.write(f"paddockd: {error if isinstance(error, UsageError) else 'no such tool'}\n{USAGE}")
        return EXIT_USAGE
    except errors.Fault as fault:
        sys.stderr.write(f"paddockd: {fault.kind}: {fault.message}\n")
        return _exit_code(fault)


def _exec(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    timeout, command = _option(arguments, "--timeout", str(daemon.EXEC_TIMEOUT_S))
    if not command:
        raise UsageError("exec-command needs a command")
    params = _params(
        daemon.ExecCommandParams,
        command=list(command),
        cwd=str(pathlib.Path.cwd()),
        timeoutS=_number(timeout, float),
        outputLimitBytes=4 * 1024 * 1024,
    )
    home = settings.home_of(environ)
    surroundings = environment.Environment(environ, settings.folder_of(environ) / ".env")
    completed = asyncio.run(_run(params, surroundings, home))
    sys.stdout.buffer.write(completed.stdout)
    sys.stderr.buffer.write(completed.stderr)
    omitted = completed.stdout_omitted_bytes + completed.stderr_omitted_bytes
    if omitted:
        sys.stderr.write(f"paddockd: {omitted} bytes from the middle of the output were left out\n")
    if completed.timed_out:
        sys.stderr.write(f"paddockd: killed after {params.timeout_s:g} s\n")
        return EXIT_TIMED_OUT
    if completed.exit_code is None:
        return EXIT_SIGNAL + getattr(signal, completed.signal or "", signal.SIGKILL)
    return completed.exit_code


async def _run(
    params: daemon.ExecCommandParams, surroundings: environment.Environment, home: str
) -> children.Completed:
    child = exec_command.start(params, surroundings, home)
    try:
        completed = await child.wait()
    finally:
        child.kill()  # Ctrl-C; nothing is left to kill otherwise
    return completed or child.ended.result()


def _write(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    mode, rest = _option(arguments, "--mode", "644")
    params = _params(
        daemon.WriteFileParams,
        path=_path(rest, environ),
        content=base64.b64encode(sys.stdin.buffer.read()).decode("ascii"),
        encoding="base64",
        mode=_number(mode, lambda text: int(text, 8)),
    )
    result = write_file.write(params, settings.home_of(environ))
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    return 0


def _read(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    path = _path(arguments, environ)
    offset = 0
    while True:
        # In parts, so that a file of any size comes through.
        params = daemon.ReadFileParams(path=path, offset=offset, length=read_file.CONTENT_BYTES_MAX)
        result = read_file.read(params, settings.home_of(environ))
        text = result.content
        content = base64.b64decode(text) if result.encoding == "base64" else text.encode()
        sys.stdout.buffer.write(content)
        offset += len(content)
        if not content or offset >= result.size:
            return 0


_TOOLS: Mapping[str, Callable[[Sequence[str], Mapping[str, str]], int]] = {
    "exec-command": _exec,
    "write-file": _write,
    "read-file": _read,
}


def _option(arguments: Sequence[str], name: str, default: str) -> tuple[str, Sequence[str]]:
    """The value of an option that may stand first, and the rest; `--` ends the options."""
    if arguments and arguments[0] == name:
        if len(arguments) == 1:
            raise UsageError(f"{name} needs a value")
        return arguments[1], arguments[2:]
    if arguments and arguments[0] == "--":
        return default, arguments[1:]
    if arguments and arguments[0].startswith("--"):
        raise UsageError(f"there is no option {arguments[0]}")
    return default, arguments


def _path(arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    if len(arguments) != 1 or not arguments[0]:
        raise UsageError("exactly one path is needed")
    path = arguments[0]
    if path == "~" or path.startswith("~/"):
        path = settings.home_of(environ) + path[1:]
    # abspath drops a slash at the end, which says that a directory is meant.
    absolute = os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links
    return absolute + ("/" if path.endswith("/") else "")


def _number(text: str, convert: Callable[[str], NumberT]) -> NumberT:
    try:
        return convert(text)
    except ValueError:
        raise UsageError(f"{text!r} is no number that fits here") from None


def _params(kind: type[ParamsT], **members: Any) -> ParamsT:
    """The parameters, checked as those of a call are."""
    try:
        return msgspec.convert(members, kind)
    except msgspec.ValidationError as error:
        raise errors.InvalidParams(f"cannot use these arguments: {error}") from error


def _exit_code(fault: errors.Fault) -> int:
    """As a shell has it for commands that cannot be started."""
    if isinstance(fault, errors.CommandNotFound):
        return EXIT_NOT_FOUND
    return EXIT_CANNOT_RUN if isinstance(fault, errors.PermissionDenied | errors.CannotSpawn) else EXIT_FAULT
