"""`paddock exec MACHINE -- COMMAND…`: run one command in a machine.

Its output is ours as it comes and its exit code is ours; what it was not able to say goes to stderr after `paddock:`. When
it could not be run, or its end is not known, the exit code is 70 to 78. With `--json` it is one call and one result.
"""

import contextlib
import dataclasses
import sys
from typing import Annotated

import typer

from paddock.client.commands import (
    assignments,
    desk,
    endings,
    failures,
    noun,
    places,
    starting,
    terminal,
    views,
)
from paddock.contracts import daemon, errors
from paddock.contracts import executions as limits
from paddock.contracts.api import machines

app = noun.Noun("Run a command in a machine; its output, exit code and Ctrl-C are ours.")


@app.verb("exec", takes_rest=True)
async def exec_(
    at: desk.Desk,
    machine: Annotated[str, typer.Argument(help="The machine's id.")],
    command: Annotated[list[str], typer.Argument(help="The binary and its arguments; no shell.")],
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Give it our standard input.")] = False,
    tty: Annotated[
        bool, typer.Option("--tty", "-t", help="Give it this terminal, with all keys and its size; means -i.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Print its id as soon as it runs, and leave it.")
    ] = False,
    cwd: Annotated[str, typer.Option(help="The working directory, from the home directory.")] = "~",
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Or NAME@FILE; on top of the machine's. Repeatable."),
    ] = None,
    user: Annotated[str, typer.Option(help="As this user of the machine: a name or a number.")] = "",
    exec_id: Annotated[
        str | None,
        typer.Option(
            "--id", help="Your name for it: typed again with it, the command runs once and is found."
        ),
    ] = None,
    timeout_s: Annotated[
        float | None,
        typer.Option(
            "--timeout-s",
            min=0.001,
            max=limits.TIMEOUT_MAX_S,
            help=f"Seconds until it is killed whole; without a limit, and {daemon.EXEC_TIMEOUT_S:g} with --json.",
        ),
    ] = None,
) -> None:
    """Run a command in an active machine, and end as it ends.

    Options go before the machine: paddock exec --cwd app m123 -- make test

    Ctrl-C sends it SIGINT, a second one within 2 s SIGTERM, a third leaves it running. It also runs on when this terminal
    is closed; `paddock ps` finds it and `paddock attach` comes back. When nobody reads our output any more, as in
    `| head`, it gets SIGPIPE and we end with 141.
    """
    if tty and (at.is_json or detach):
        raise errors.InvalidParams("cannot give it this terminal: leave out --tty, or --json and --detach")
    if stdin and detach:
        raise errors.InvalidParams("cannot give our standard input to a command we leave: leave out --stdin")
    wanted = starting.Wanted(
        machine,
        _words(command),
        places.in_machine(cwd),
        assignments.read(env or []),
        user,
        exec_id,
        timeout_s,
    )
    if detach:
        await _leave(at, wanted)
    elif at.is_json:
        ended = await _whole(at, wanted, sys.stdin.read() if stdin else "")
        print(ended.model_dump_json(by_alias=True))
        raise typer.Exit(endings.exit_code(ended))
    else:
        if tty:
            terminal.demanded("give it a terminal")
        raise typer.Exit(await starting.run(at, wanted, stdin=stdin, has_terminal=tty))


def _words(command: list[str]) -> list[str]:
    """The command without the `--` before it, which typer leaves in when it comes after the machine."""
    if command[0] == "--" and len(command) > 1:
        return command[1:]
    if command[0].startswith("-"):
        raise errors.InvalidParams(
            f"cannot run {command[0]!r}: options go before the machine, as in paddock exec --cwd app MACHINE -- ls"
        )
    return command


async def _leave(at: desk.Desk, wanted: starting.Wanted) -> None:
    process = await starting.start(at, wanted)
    if process.execution is not None and process.execution.failure is not None:
        endings.exit_code(process.execution)
    if at.is_json:
        print((process.execution or await process.look()).model_dump_json(by_alias=True))
    else:
        print(failures.printable(process.id))


async def _whole(at: desk.Desk, wanted: starting.Wanted, stdin: str) -> machines.ExecResult:
    """Run it in one call; as another user it is followed to its end, because that call knows of no users."""
    limit_s = daemon.EXEC_TIMEOUT_S if wanted.timeout_s is None else wanted.timeout_s
    if wanted.user:
        return await _followed(at, dataclasses.replace(wanted, timeout_s=limit_s), stdin)
    return await at.client.machines.exec(
        wanted.machine,
        wanted.command,
        cwd=wanted.cwd,
        env=wanted.env,
        timeout_s=limit_s,
        stdin=stdin,
        call_id=wanted.exec_id,
    )


async def _followed(at: desk.Desk, wanted: starting.Wanted, stdin: str) -> machines.ExecResult:
    process = await starting.start(at, wanted, stdin=bool(stdin))
    if stdin:
        with contextlib.suppress(errors.NotRunning, errors.StdinClosed):  # it need not read all
            await process.write(stdin.encode(), eof=True)
    ended = await process.wait()
    endings.expect_end(ended)
    seen = await process.summary(limit_bytes=daemon.OUTPUT_LIMIT_BYTES)
    return machines.ExecResult(
        exit_code=ended.exit_code,
        signal=ended.signal,
        timed_out=ended.timed_out,
        stdout=seen.stdout,
        stderr=seen.stderr,
        stdout_bytes=ended.stdout_bytes,
        stderr_bytes=ended.stderr_bytes,
        stdout_omitted_bytes=seen.stdout_omitted_bytes,
        stderr_omitted_bytes=seen.stderr_omitted_bytes,
        took_ms=views.took_ms(ended) or 0,
    )
