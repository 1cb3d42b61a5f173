"""The setup of a machine: an ordered table of steps, each done once.

First the environment file, which has no mark of its own: its content is the mark. Then every repository, then the
project's commands. A step's digest is written in the machine after it (`~/.paddock/setup/<step>`) and read before it, so
a daemon that comes back a hundred times is pushed nothing. The digest is of what is wanted; the environment is not in it.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from paddock.bus import logs
from paddock.contracts import daemon, errors, events
from paddock.setup_pusher import env, environment, guest, redaction, repositories

log = logs.get(__name__)

FOLDER = "~/.paddock/setup"


@dataclasses.dataclass(frozen=True, slots=True)
class ProjectStep:
    """A command of the project's blueprint, run once after the clones."""

    name: str
    argv: tuple[str, ...]
    cwd: str = "~"
    timeout_s: float = daemon.EXEC_TIMEOUT_S


@dataclasses.dataclass(frozen=True, slots=True)
class Setup:
    """All that one machine needs."""

    environment: environment.Environment
    clones: Sequence[repositories.Repository] = ()
    commands: Sequence[ProjectStep] = ()
    protocols: Sequence[str] = repositories.PROTOCOLS
    secrets: Sequence[str] = dataclasses.field(default=(), repr=False)
    """Values no error may show."""


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One row of the table. `work` may be begun twice, by a takeover; what it runs in the machine runs once."""

    name: str
    digest: str
    title: str
    work: Callable[[guest.Guest], Awaitable[object]]


Tell: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[None]]
"""Says that something happened, by event type, with its facts: what people follow."""


async def say_nothing(_event_type: str, _facts: dict[str, Any]) -> None:
    """For whoever has nobody to tell."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pushed:
    """What was not there before."""

    wrote_env: bool
    steps: tuple[str, ...]


def table(setup: Setup) -> list[Step]:
    """The marked steps, in order."""
    clones = [
        Step(
            one.step,
            one.digest,
            f"clone {one.path}",
            functools.partial(repositories.clone, wanted=one, protocols=setup.protocols),
        )
        for one in setup.clones
    ]
    return clones + [_command(at, one, setup) for at, one in enumerate(setup.commands, start=1)]


async def push(machine: guest.Guest, setup: Setup, tell: Tell = say_nothing) -> Pushed:
    """Bring the machine to where `setup` says, doing only what is not done.

    Args:
        machine: The machine, for one run.
        setup: What it needs.
        tell: Told when a marked step begins and ends. What a takeover begins again is told again.

    Raises:
        errors.PathInUse, errors.RepositoryFailed, errors.SetupFailed: A step failed; the ones after it were not begun.
        errors.Fault: The machine refused something else, or was away for too long.
    """
    wrote_env = await env.apply(machine, setup.environment)
    done: list[str] = []
    for step in table(setup):
        if await machine.read_file(f"{FOLDER}/{step.name}") == step.digest:
            continue
        facts: dict[str, Any] = {"step": step.name, "title": step.title}
        log.info("setup_step_started", run=machine.run, **facts)
        await tell(events.MACHINE_SETUP_STEP_STARTED, facts)
        began = machine.clock.monotonic()
        await step.work(machine)
        await machine.write_file(f"{FOLDER}/{step.name}", step.digest, mode=0o600)
        facts["tookMs"] = round((machine.clock.monotonic() - began) * 1000)
        log.info("setup_step_done", step=step.name, title=step.title, took_ms=facts["tookMs"])
        await tell(events.MACHINE_SETUP_STEP_FINISHED, facts)
        done.append(step.name)
    return Pushed(wrote_env, tuple(done))


def _command(position: int, step: ProjectStep, setup: Setup) -> Step:
    wanted = msgspec.json.encode([step.argv, step.cwd])
    name, digest = f"step-{position:02}", hashlib.sha256(wanted).hexdigest()[:16]
    work = functools.partial(_run, step=step, name=name, digest=digest, setup=setup)
    return Step(name, digest, redaction.hide(step.name, setup.secrets), work)


async def _run(machine: guest.Guest, *, step: ProjectStep, name: str, digest: str, setup: Setup) -> None:
    title = redaction.hide(step.name, setup.secrets)
    command = guest.Command(name, digest, step.argv, cwd=step.cwd, timeout_s=step.timeout_s)
    try:
        result = await machine.run_once(command)
    except (
        errors.CommandNotFound,
        errors.PermissionDenied,
        errors.NoSuchPath,
        errors.NotADirectory,
    ) as fault:
        raise errors.SetupFailed(
            f"cannot run the setup step {title!r}: {fault.message}", data={"step": title, "kind": fault.kind}
        ) from fault
    if result.exit_code == 0:
        return
    said = redaction.tail(result.stderr or result.stdout, setup.secrets)
    raise errors.SetupFailed(
        f"cannot finish the setup step {title!r}: {repositories.ended(result, said)}",
        data={
            "step": title,
            "exitCode": result.exit_code,
            "signal": result.signal,
            "timedOut": result.timed_out,
            "stderrTail": said,
        },
    )
