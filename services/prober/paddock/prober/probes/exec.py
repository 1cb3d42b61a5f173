"""A command of the project's blueprint ends with exit code 0."""

from collections.abc import Sequence

from paddock.contracts import daemon, errors
from paddock.prober import target

ANSWER_MARGIN_S = 5.0


async def ask(machine: target.Target, *, command: Sequence[str], cwd: str, timeout_s: float) -> None:
    """Run it once more; a probe must be harmless to repeat.

    Raises:
        errors.ProbeFailed: It ended otherwise, took too long or could not be run.
    """
    params = daemon.ExecCommandParams(command=list(command), cwd=cwd, timeout_s=timeout_s)
    try:
        result = await machine.call(daemon.EXEC_COMMAND, params, timeout_s=timeout_s + ANSWER_MARGIN_S)
    except errors.Fault as fault:
        raise errors.ProbeFailed(
            f"cannot run the probe: {fault.message}", data={"kind": fault.kind}
        ) from fault
    if result.exit_code == 0:
        return
    if result.timed_out:
        raise errors.ProbeFailed(f"the probe took longer than {timeout_s:g} s")
    ending = f"signal {result.signal}" if result.exit_code is None else f"exit code {result.exit_code}"
    raise errors.ProbeFailed(f"the probe ended with {ending}", data={"exitCode": result.exit_code})
