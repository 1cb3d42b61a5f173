"""The cron scheduler: always on, looking at one crontab file, which may come, change and go.

Jobs run through `/bin/sh` in the home directory with the environment of commands. A job still running when it is due
again is passed over that time. How it ended is one log line, with the end of what a failed one complained.
"""

import asyncio
import pathlib
from typing import TYPE_CHECKING

from paddock.bus import children, clock, lifecycle, logs
from paddock.contracts import daemon, errors
from paddock.daemon import environment

if TYPE_CHECKING:
    from paddock.daemon import crontab

LOOK_S = 5.0
"""Between two looks at the file."""
JUMP_MS = 90_000
"""A clock that moved further than this between two looks was set, or the machine slept: what was missed is not made up."""
_OUTPUT_BYTES = 4096

log = logs.get(__name__)


class Scheduler:
    """Starts the jobs of one file when they are due."""

    def __init__(
        self, file: pathlib.Path, surroundings: environment.Environment, home: str, now: clock.Clock
    ) -> None:
        self._file = file
        self._surroundings = surroundings
        self._home = home
        self._clock = now
        self._seen: tuple[int, int, int] | None = None
        self._looked_at_ms = 0
        self._due: dict[crontab.Job, int] = {}
        self._running: set[str] = set()

    @property
    def running(self) -> int:
        """How many jobs are under way."""
        return len(self._running)

    async def run(self, stop: asyncio.Event) -> None:
        """Schedule until `stop`; jobs under way run on."""
        while not stop.is_set():
            await lifecycle.pause(self.look(), stop)

    def look(self) -> float:
        """Start what is due; returns the seconds until the next look."""
        now_ms = self._clock.now_ms()
        self._reload(now_ms)
        if abs(now_ms - self._looked_at_ms) > JUMP_MS:
            self._due = {job: job.next_after(now_ms) for job in self._due}
        self._looked_at_ms = now_ms
        for job, due_ms in self._due.items():
            if due_ms <= now_ms:
                self._due[job] = job.next_after(now_ms)
                self._start(job)
        next_ms = min(self._due.values(), default=now_ms + int(LOOK_S * 1000))
        return min(LOOK_S, (next_ms - now_ms) / 1000)

    def _reload(self, now_ms: int) -> None:
        try:
            status = self._file.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return
            text = self._file.read_text("utf-8", "replace")
        except OSError as error:
            if self._seen is not None:
                log.info("crontab_gone", error=(error.strerror or "").lower())
            self._seen, self._due = None, {}
            return
        # Not before there is a crontab: most machines have none.
        from paddock.daemon import crontab  # noqa: PLC0415

        table = crontab.parse(text)
        self._seen = seen
        self._due = {job: job.next_after(now_ms) for job in table.jobs}
        for line, reason in table.bad_lines.items():
            log.warning("crontab_line_passed_over", line=line, reason=reason)
        log.info("crontab_loaded", jobs=len(table.jobs))

    def _start(self, job: "crontab.Job") -> None:
        if job.key in self._running:
            log.warning("cron_job_still_running", line=job.line)
            return
        try:
            child = children.start(
                ["/bin/sh", "-c", job.command],
                env=self._surroundings.now(job.variables),
                cwd=self._home,
                limit_bytes=_OUTPUT_BYTES,
            )
        except (OSError, ValueError, errors.Fault) as error:
            log.warning("cron_job_not_started", line=job.line, error=str(error))
            return
        child.expire_after(daemon.EXEC_TIMEOUT_MAX_S)
        self._running.add(job.key)
        child.ended.add_done_callback(lambda done: self._ended(job, done.result()))

    def _ended(self, job: "crontab.Job", completed: children.Completed) -> None:
        self._running.discard(job.key)
        how = {"exit_code": completed.exit_code, "signal": completed.signal, "took_ms": completed.took_ms}
        if completed.exit_code == 0:
            log.info("cron_job_ended", line=job.line, **how)
        else:
            tail = logs.redact_text(completed.stderr.decode("utf-8", "replace")[-400:])
            log.warning("cron_job_failed", line=job.line, error_tail=tail, **how)
