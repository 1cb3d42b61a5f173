"""Starting a command in a machine, under a name that finds it again."""

import asyncio
import dataclasses
import secrets
from typing import Final

from paddock.client import process as processes
from paddock.client.commands import desk, failures, foreground, terminal

ID_BYTES: Final = 6
"""Short, because people type it; what else runs in a machine within a day is no 2^24 commands."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What shall run. With an `exec_id` it may be the second time that it is asked for."""

    machine: str
    command: list[str]
    cwd: str = "~"
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    user: str = ""
    exec_id: str | None = None
    timeout_s: float | None = None


async def start(
    at: desk.Desk, wanted: Wanted, *, stdin: bool = False, has_terminal: bool = False
) -> processes.Process:
    """Start it, or find it; with our terminal it is told what that is.

    Cancellation: it may have been started, and its id is told.
    """
    exec_id = wanted.exec_id or secrets.token_hex(ID_BYTES)
    size = terminal.size()
    try:
        return await at.client.machine(wanted.machine).exec.start(
            wanted.command,
            id=exec_id,
            cwd=wanted.cwd,
            env=(terminal.environment() if has_terminal else {}) | wanted.env,
            user=wanted.user,
            stdin=stdin or has_terminal,
            pty=has_terminal,
            timeout_s=wanted.timeout_s,
            **({"columns": size.columns, "rows": size.rows} if has_terminal else {}),
        )
    except asyncio.CancelledError:
        failures.say(f"it may have been started; if so, it is command {exec_id} of {wanted.machine}")
        raise


async def run(at: desk.Desk, wanted: Wanted, *, stdin: bool = False, has_terminal: bool = False) -> int:
    """Start it in the foreground and follow it; our exit code."""
    process = await start(at, wanted, stdin=stdin, has_terminal=has_terminal)
    given = 0
    if wanted.exec_id is not None and not has_terminal and process.execution is not None:
        # Asked for again: our standard input is the same as well, and the beginning of it was taken.
        given = process.execution.stdin_bytes
    manner = foreground.Manner(takes_stdin=stdin or has_terminal, has_terminal=has_terminal, skip_bytes=given)
    return await foreground.follow(process, manner)
