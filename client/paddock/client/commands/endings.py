"""How a command in a machine ended, as our own exit code and a remark beside it."""

from typing import Final

from paddock.client.commands import failures, signals
from paddock.contracts import errors
from paddock.contracts.api import executions, machines

TIMED_OUT: Final = 124
"""As timeout(1) has it."""


def exit_code(one: executions.Execution | machines.ExecResult) -> int:
    """Its exit code, or what shells make of a signal; what is no exit code is told on stderr.

    Raises:
        errors.Fault: It could not be started, or nobody can say how it ended.
    """
    if isinstance(one, executions.Execution):
        expect_end(one)
    if one.timed_out:
        failures.say("it was killed at the end of its time; give it longer with --timeout-s")
        return TIMED_OUT
    if one.exit_code is not None:
        return one.exit_code
    name = one.signal or "a signal"
    failures.say(f"it was ended by {failures.printable(name)}")
    return signals.exit_code(name)


def expect_end(one: executions.Execution) -> None:
    """Raise what stands instead of an end.

    Raises:
        errors.Fault: It could not be started, or nobody can say how it ended.
    """
    if one.failure is not None:
        raise errors.from_wire(one.failure.code, one.failure.message)
    if one.lost:
        raise errors.OutcomeUnknown(
            f"cannot say how command {one.id} ended: it ran, and its end was not seen"
        )
    if one.state == "unknown":
        raise errors.OutcomeUnknown(f"cannot say how command {one.id} ended, nor whether it was started")
