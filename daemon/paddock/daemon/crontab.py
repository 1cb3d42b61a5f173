"""What a crontab says: jobs in the usual five fields, and variables for the jobs below them.

Also `@hourly` and its like. A line that makes no sense is reported with its number and the others count. `%` has no
meaning of its own and `@reboot` is not offered: a sandbox restarts its daemon, not itself.
"""

import dataclasses
import datetime
import re
from collections.abc import Mapping

import cronsim

_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", re.ASCII)
_FIELDS = 5


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One line: when, what for a shell, and with which variables."""

    line: int
    expression: str
    command: str
    variables: Mapping[str, str]

    @property
    def key(self) -> str:
        """Names the job beyond one reading of the file."""
        return f"{self.expression} {self.command}"

    def next_after(self, now_ms: int) -> int:
        """When it is next due, unix milliseconds, by this machine's local time."""
        local = datetime.datetime.fromtimestamp(now_ms / 1000).astimezone()
        return round(next(cronsim.CronSim(self.expression, local)).timestamp() * 1000)


@dataclasses.dataclass(frozen=True, slots=True)
class Crontab:
    """The jobs of a file, and by line number what was wrong with the others."""

    jobs: tuple[Job, ...]
    bad_lines: Mapping[int, str]


def parse(text: str) -> Crontab:
    """Read a crontab. Never fails: see `bad_lines`."""
    jobs: list[Job] = []
    bad_lines: dict[int, str] = {}
    variables: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        variable = _VARIABLE.fullmatch(line)
        if variable is not None:
            variables = {**variables, variable[1]: _unquoted(variable[2].strip())}
            continue
        try:
            jobs.append(_job(number, line, variables))
        except (cronsim.CronSimError, ValueError, StopIteration) as error:
            bad_lines[number] = str(error) or "it never comes due"
    return Crontab(tuple(jobs), bad_lines)


def _job(number: int, line: str, variables: Mapping[str, str]) -> Job:
    fields = line.split(maxsplit=1 if line.startswith("@") else _FIELDS)
    command = fields.pop()
    expression = " ".join(fields)
    if line.startswith("@"):
        if expression not in _NICKNAMES:
            raise ValueError(f"there is no {line.split(maxsplit=1)[0]} here, or it has no command")
        expression = _NICKNAMES[expression]
    elif len(fields) != _FIELDS:
        raise ValueError("it must be five fields and a command")
    job = Job(number, expression, command, variables)
    job.next_after(0)  # some only show here that they never come, such as the 30th of February
    return job


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value
