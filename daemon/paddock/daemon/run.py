"""`paddockd run`: the daemon itself, from its lock to its exit code.

It takes the lock, says what it is doing in `state.json`, connects out to the bus, answers calls, and says ready. It stops
when told by a signal or by the control plane, or when its supervisor is gone: refuse new calls, finish those in flight
for `drain_s`, close the bus. Commands still running then run on, and the next daemon knows of them.
"""

import asyncio
import contextlib
import functools
import os

from paddock.bus import clock, lifecycle, logs, responder, safeclient
from paddock.contracts import daemon, ids, rpc, subjects
from paddock.daemon import (
    calls,
    cron,
    environment,
    exec_later,
    file_handlers,
    handlers,
    journal,
    lock,
    processes,
    ready,
    settings,
    spool,
    state,
    version,
)

COMPACT_S = 3600.0
EXIT_FAILED = 1
_CONTROL_DRAIN_S = 1.0
_CANCEL_AGAIN_S = 0.1
_CLOSE_S = 10.0
"""Beyond `drain_s`, for closing what is open."""

log = logs.get(__name__)


class Daemon:
    """One life of the daemon. `serve` it once."""

    def __init__(self, told: settings.Settings) -> None:
        self._told = told
        self._boot_id = ids.new_boot_id()
        self._clock = clock.SyncedClock()
        self._stop = asyncio.Event()
        self._exit_code = daemon.EXIT_RESTART if told.supervisor_pid else daemon.EXIT_STOP
        self._reason = "asked to stop by a signal"
        self._journal = journal.Journal(told.folder / "journal", self._clock)
        self._calls = calls.Calls(self._journal)
        self._surroundings = environment.Environment(told.environ, told.env_file)
        self._of_commands = exec_later.ExecLater(told, self._surroundings, self._clock)
        self._of_files = file_handlers.FileHandlers(
            ledger=self._calls, home=told.home, folder=told.folder, now=self._clock
        )
        self._state = state.StateFile(told.folder / "state.json")
        self._spool = spool.Spool(told.folder / "spool")
        self._last_exit = ""

    async def serve(self) -> int:
        """Run until the end; returns the exit code.

        Raises:
            lock.TakenError: Another daemon runs in this home.
            OSError: The folder cannot be used.
            ExceptionGroup: A bug.
        """
        lifecycle.on_signals(self._stop)
        if self._told.booted_fd >= 0:
            with contextlib.suppress(OSError):
                os.set_inheritable(self._told.booted_fd, False)
        held = lock.take(self._told.folder / "daemon.lock")
        try:
            self._take_over()
            loops = {
                "bus": self._serve_bus,
                "cron": self._cron().run,
                "journal": self._compact,
                "executions": self._of_commands.run,
            }
            await lifecycle.run(loops, self._stop, drain_s=self._told.boot.drain_s + _CLOSE_S)
        except TimeoutError:
            log.warning("stop_cut_short", hint="the bus did not let go in time; nothing accepted was lost")
        finally:
            self._say("stopped", self._reason)
            self._journal.close()
            await self._of_commands.close()
            os.close(held)
        log.info("daemon_stopped", reason=self._reason, exit_code=self._exit_code)
        return self._exit_code

    def _take_over(self) -> None:
        """Learn how the daemon before this one ended, and take over what it began."""
        last = self._state.read(now_ms=self._clock.now_ms())
        self._last_exit = state.last_exit(last, self._told.last_exit)
        self._say("running", "waiting for the bus")
        self._journal.open()
        self._calls.adopt()
        self._watch_supervisor()

    def _watch_supervisor(self) -> None:
        """Without pid namespaces nobody else ends us and our commands when the supervisor is killed."""
        pid = self._told.supervisor_pid
        if pid and (
            os.getppid() != pid or not processes.on_end(pid, processes.start_ticks(pid), self._orphaned)
        ):
            self._orphaned()

    def _orphaned(self) -> None:
        self._calls.kill_all()
        self._end(EXIT_FAILED, "the supervisor is gone")

    def _booted(self) -> None:
        """Let whoever waits for the end of this boot know it."""
        if self._told.booted_fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._told.booted_fd)

    def _end(self, exit_code: int, reason: str) -> None:
        self._exit_code, self._reason = exit_code, reason
        self._stop.set()

    def _say(self, name: state.Name, reason: str) -> None:
        self._state.write(
            state.State(
                state=name,
                state_reason=reason,
                boot_id=self._boot_id,
                pid=os.getpid(),
                version=version.VERSION,
                since_ms=self._clock.now_ms(),
            )
        )

    def _cron(self) -> cron.Scheduler:
        # The machine's own clock: a crontab means what `date` says here.
        file = self._told.folder / "crontab"
        return cron.Scheduler(file, self._surroundings, self._told.home, clock.SystemClock())

    async def _compact(self, stop: asyncio.Event) -> None:
        async for _ in lifecycle.every(COMPACT_S, stop):
            self._journal.compact()
            await self._of_files.remove_abandoned()

    async def _serve_bus(self, stop: asyncio.Event) -> None:
        nc = await self._connect(stop)
        if nc is None:
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                control, work = self._responders(nc, tasks)
                await control.start()
                await work.start()
                tasks.create_task(self._beat(nc, stop), name="beat")
                reporting = tasks.create_task(self._report(nc, stop), name="report")
                await stop.wait()
                reporting.cancel()
                await work.drain(self._told.boot.drain_s)
                # Last: it carries the credit by which the answers of the other flow.
                await control.drain(_CONTROL_DRAIN_S)
        finally:
            await nc.close()

    async def _connect(self, stop: asyncio.Event) -> safeclient.SafeClient | None:
        """The connection, tried for ever; None when `stop` was set first."""
        boot = self._told.boot
        connect = safeclient.connect(
            boot.bus_url,
            name=boot.sandbox_id,
            creds=self._told.credentials,
            inbox_prefix=boot.inbox_prefix,
            reconnect_jitter_s=boot.reconnect_jitter_s,
        )
        async with asyncio.TaskGroup() as tasks:
            connecting = tasks.create_task(connect, name="connect")
            stopping = tasks.create_task(stop.wait(), name="stop")
            await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            while not connecting.done():
                # Again and again: a refused connection that ends in the same moment swallows a cancellation
                # (asyncio.wait_for before Python 3.12), and nats-py goes on trying.
                connecting.cancel()
                await asyncio.wait({connecting}, timeout=_CANCEL_AGAIN_S)
        return None if connecting.cancelled() else connecting.result()

    def _responders(
        self, nc: safeclient.SafeClient, tasks: asyncio.TaskGroup
    ) -> tuple[responder.Responder, responder.Responder]:
        """The one for what overtakes calls, and the one for calls."""
        table = handlers.Handlers(
            ledger=self._calls,
            surroundings=self._surroundings,
            home=self._told.home,
            boot_id=self._boot_id,
            now=self._clock,
            more=(*self._of_commands.table(), *self._of_files.table()),
        )
        make = functools.partial(
            responder.Responder,
            nc,
            queue=subjects.DAEMON_QUEUE,
            clock=self._clock,
            tasks=tasks,
            held_reply_s=self._told.boot.held_reply_s,
        )
        sandbox = self._told.sandbox
        work = make(subject=subjects.rpc_call(sandbox), handlers=table.for_calls())
        control = make(
            subject=subjects.rpc_control(sandbox), handlers=table.for_control(work.credit_handler())
        )
        return control, work

    async def _beat(self, nc: safeclient.SafeClient, stop: asyncio.Event) -> None:
        told = self._told
        period_s = told.boot.heartbeat_s
        await ready.beat(nc, told.sandbox, self._boot_id, self._clock, stop, period_s=period_s)

    async def _report(self, nc: safeclient.SafeClient, stop: asyncio.Event) -> None:
        report = daemon.ReadyParams(
            boot_id=self._boot_id,
            wire_version=rpc.WIRE_VERSION,
            daemon_version=version.VERSION,
            sent_at_ms=self._clock.now_ms(),
            last_exit=self._last_exit,
        )
        answer = await ready.report(
            nc, self._told.sandbox, report, self._spool, self._clock, stop, answer_s=self._told.boot.answer_s
        )
        if answer == "stop":
            self._end(daemon.EXIT_STOP, "the control plane says that this sandbox is over")
        elif answer == "ok":
            self._say("running", "ready")
            self._booted()


def main(told: settings.Settings) -> int:
    """Run the daemon; returns the exit code."""
    logs.configure("daemon")
    logs.bind(sandbox_id=told.boot.sandbox_id)
    try:
        return asyncio.run(Daemon(told).serve())
    except lock.TakenError as error:
        log.warning("cannot_run", reason=str(error), hint="another daemon runs in this home")
    except OSError as error:
        log.warning("cannot_run", reason=str(error))
    return EXIT_FAILED
