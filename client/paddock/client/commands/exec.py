"""`paddock exec MACHINE -- COMMAND…`: run one command in a machine.

Its output is ours and its exit code is ours; what it was not able to say goes to stderr after `paddock:`. When it
could not be run, or its end is not known, the exit code is 70 to 78.
"""

import signal
import sys
from typing import Annotated

import typer

from paddock.client.commands import assignments, desk, failures, noun
from paddock.contracts import daemon, errors
from paddock.contracts.api import machines

app = noun.Noun("Run one command in a machine.")

TIMED_OUT = 124
"""As timeout(1) has it."""
SIGNAL_BASE = 128
"""As shells have it: a command ended by signal 9 is 137."""


@app.verb("exec", takes_rest=True)
async def exec_(
    at: desk.Desk,
    machine: Annotated[str, typer.Argument(help="The machine's id.")],
    command: Annotated[list[str], typer.Argument(help="The binary and its arguments; no shell.")],
    cwd: Annotated[str, typer.Option(help="The working directory.")] = "~",
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Or NAME@FILE; on top of the machine's. Repeatable."),
    ] = None,
    timeout_s: Annotated[
        float,
        typer.Option(
            "--timeout-s", min=0.001, max=daemon.EXEC_TIMEOUT_MAX_S, help="Seconds until it is killed whole."
        ),
    ] = daemon.EXEC_TIMEOUT_S,
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Give it our standard input.")] = False,
) -> None:
    """Run one command in an active machine, and end as it ends.

    Options go before the machine: paddock exec --cwd ~/app m123 -- make test
    """
    words = _words(command)
    ended = await at.client.machines.exec(
        machine,
        words,
        cwd=cwd,
        env=assignments.read(env or []),
        timeout_s=timeout_s,
        stdin=sys.stdin.read() if stdin else "",
    )
    if at.is_json:
        print(ended.model_dump_json(by_alias=True))
    else:
        _pass_on(ended)
    raise typer.Exit(_exit_code(ended, timeout_s))


def _words(command: list[str]) -> list[str]:
    """The command without the `--` before it, which typer leaves in when it comes after the machine."""
    if command[0] == "--" and len(command) > 1:
        return command[1:]
    if command[0].startswith("-"):
        raise errors.InvalidParams(
            f"cannot run {command[0]!r}: options go before the machine, as in paddock exec --cwd ~ MACHINE -- ls"
        )
    return command


def _pass_on(ended: machines.ExecResult) -> None:
    for stream, text, omitted_bytes, name in (
        (sys.stdout, ended.stdout, ended.stdout_omitted_bytes, "stdout"),
        (sys.stderr, ended.stderr, ended.stderr_omitted_bytes, "stderr"),
    ):
        stream.buffer.write(text.encode(errors="replace"))
        stream.flush()
        if omitted_bytes:
            failures.say(f"{omitted_bytes} bytes of its {name} were left out of the middle")


def _exit_code(ended: machines.ExecResult, timeout_s: float) -> int:
    if ended.timed_out:
        failures.say(f"it was killed after {timeout_s:g} s; give it longer with --timeout-s")
        return TIMED_OUT
    if ended.exit_code is not None:
        return ended.exit_code
    name = ended.signal or "a signal"
    failures.say(f"it was ended by {failures.printable(name)}")
    try:
        return SIGNAL_BASE + signal.Signals[name].value
    except KeyError:
        return SIGNAL_BASE
