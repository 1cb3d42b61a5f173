"""What is said of a command: how it is, how much it wrote, why it could not be started. The same each time it is asked.

What a command wrote ends with its own end: later output of processes that it left behind is nobody's.
"""

import os
import pathlib
from collections.abc import Mapping

from paddock.contracts import errors
from paddock.contracts import executions as wire
from paddock.daemon import exec_command, exec_record, output, paths


def state(record: exec_record.Record) -> wire.State:
    """`unknown` is said of what was accepted and lost before anybody knew that it was started."""
    if record.is_failed:
        return "failed"
    if record.is_ended:
        return "unknown" if record.is_lost and not record.pid else "ended"
    return "running"


def fault(record: exec_record.Record) -> errors.Fault:
    """Why it could not be started."""
    program, number = record.command[0], record.failed_errno
    refused = OSError(number, os.strerror(number))
    if record.failed_what == "cwd":
        return paths.fault(refused, f"run {program!r}: its working directory cannot be entered")
    if record.failed_what == "user":
        return errors.PermissionDenied(f"cannot run {program!r} as another user", detail=repr(refused))
    if record.failed_what == "spawn":
        why = os.strerror(number).lower()
        return errors.CannotSpawn(f"cannot run {program!r}: the machine cannot start it: {why}")
    return exec_command.refusal(number, program, is_interpreter_missing=record.failed_what == "interpreter")


def reader(shelf: pathlib.Path, record: exec_record.Record, stream: wire.StreamName) -> output.Reader:
    """For one stream of what it wrote; close it."""
    return output.Reader(shelf / record.id, stream, record.segment_bytes)


def bounds(shelf: pathlib.Path, record: exec_record.Record, stream: wire.StreamName) -> tuple[int, int]:
    """The first byte of a stream that is kept, and how many it has had in all."""
    try:
        first, size = reader(shelf, record, stream).bounds()
    except FileNotFoundError:
        first = size = 0
    end = written(record, stream)
    return (first, size) if end is None else (min(first, end), end)


def written(record: exec_record.Record, stream: wire.StreamName) -> int | None:
    """How much a command wrote that has ended; None when it may go on, or nobody counted."""
    if not record.is_ended or record.is_lost:
        return None
    return record.stdout_bytes if stream == "stdout" else record.stderr_bytes


def execution(
    shelf: pathlib.Path, record: exec_record.Record, fact: Mapping[str, object] | None = None
) -> wire.Execution:
    """The command as it is now.

    Args:
        shelf: Where the records are.
        record: What is known of it.
        fact: What its keeper says of it while it runs.
    """
    stdout_from, stdout_bytes = bounds(shelf, record, "stdout")
    stderr_from, stderr_bytes = bounds(shelf, record, "stderr")
    now = state(record)
    stdin, stalled = (fact or {}).get("stdin"), (fact or {}).get("stalled")
    refused = fault(record) if now == "failed" else None
    return wire.Execution(
        id=record.id,
        command=record.command,
        state=now,
        began_at_ms=record.began_at_ms,
        ended_at_ms=record.ended_at_ms,
        pid=record.pid,
        pty=record.pty,
        exit_code=record.exit_code,
        signal=record.signal,
        timed_out=record.is_timed_out,
        lost=record.is_lost and now == "ended",
        stdout_bytes=stdout_bytes,
        stderr_bytes=stderr_bytes,
        stdout_from=stdout_from,
        stderr_from=stderr_from,
        stdin_bytes=stdin if isinstance(stdin, int) and now == "running" else record.stdin_bytes,
        stalled=stalled if isinstance(stalled, str) else "",
        failure=wire.Failure(code=refused.code, message=refused.message) if refused else None,
    )


def out_of_bounds(offset: int, first: int, size: int) -> errors.Fault | None:
    """Why output cannot be read from this offset, if it cannot."""
    if offset > size:
        return errors.BadOffset(
            f"cannot read the output from {offset}: it has {size} bytes", data={"sizeBytes": size}
        )
    if offset < first:
        return errors.OutputLimit(
            f"cannot read the output from {offset}: its first {first} bytes are no longer kept",
            data={"firstOffset": first, "sizeBytes": size},
        )
    return None
