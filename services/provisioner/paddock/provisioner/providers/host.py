"""What the providers of this host have in common: everything but how a sandbox is started and ended.

Order makes it crash-safe: the folder is there before the process, the process is dead before the folder goes. A sandbox
started by somebody who was killed before noting its pid is found again by what it is: its command line names it, and its
HOME is ours.
"""

import abc
import asyncio
import concurrent.futures
import contextlib
import os
import pathlib
import time
from typing import Final

import msgspec

from paddock.bus import clock
from paddock.contracts import errors, ids
from paddock.provisioner.providers import boots, endings, homes, procs, provider, records, runtime, spawner

DELETE_S = 20.0
"""For all of one deletion; dying takes milliseconds unless a process hangs in the kernel."""
LOG_BYTES_MAX = 8 * 1024 * 1024
"""Of one boot log, which a machine could otherwise fill the host's disk with."""
LAST_WORD_S = 1.0
"""For who waited for a sandbox to write down how it ended."""
_LOCALE: Final = "C.UTF-8"


class HostProvider(abc.ABC):
    """A provider whose sandboxes are processes of this host."""

    name: str
    notes_exits = False
    """Whether we write down how a child of ours ended; False where somebody else does."""

    def __init__(
        self,
        data: pathlib.Path,
        daemon: runtime.Runtime,
        *,
        nice: int = 5,
        boots_at_once: int = 0,
        wall: clock.Clock | None = None,
    ) -> None:
        """Make one.

        Args:
            data: Where records and homes are kept; one provisioner's alone.
            daemon: What runs in the sandboxes.
            nice: A sandbox yields to the control plane by this much; 0 for not at all.
            boots_at_once: Sandboxes that boot at the same time; 0 is one for each processor, but two at least.
            wall: The clock of `created_at_ms`.
        """
        self._boots = boots.Boots(boots_at_once or max(2, os.cpu_count() or 2))
        self.records = records.Records(data)
        self.daemon = daemon
        self._clock = wall or clock.SystemClock()
        self._spawner = spawner.Spawner(notes_exits=self.notes_exits)
        # A thread's nice value is inherited by what it starts, and an unprivileged thread cannot take it back: so these
        # threads do nothing else.
        self._starters = concurrent.futures.ThreadPoolExecutor(
            4, thread_name_prefix=f"start-{self.name}", initializer=_be_nice, initargs=(nice,)
        )

    @abc.abstractmethod
    async def available(self) -> str | None: ...

    @abc.abstractmethod
    def _launch(
        self, spec: provider.SandboxSpec, folder: records.Folder, booting: int
    ) -> tuple[procs.Process, procs.Process | None]:
        """Start the supervisor, with the descriptor `booting`; also who waits for it, if that is not us.

        Raises:
            errors.ProviderFailed: It could not be started, and nothing of it runs.
        """

    @abc.abstractmethod
    def _home_inside(self, machine: ids.MachineId) -> pathlib.Path:
        """Where the machine sees its HOME."""

    @abc.abstractmethod
    def _is_supervisor(self, pid: int, sandbox: ids.SandboxId) -> bool:
        """Whether this process is the one whose death is the sandbox's."""

    @abc.abstractmethod
    def _kill(self, sandbox: ids.SandboxId, process: procs.Process | None, *, until_s: float) -> bool:
        """End everything in the sandbox; False when something is left at `until_s`."""

    async def create(self, spec: provider.SandboxSpec) -> provider.Created:
        """Have the sandbox running; see `provider.Provider`."""
        async with self._boots.turn() as booting:
            started = self._starters.submit(self._create_and_close, spec, booting)
            # A start that was given up before a thread took it has nobody else to close this.
            started.add_done_callback(lambda done: os.close(booting) if done.cancelled() else None)
            return await asyncio.wrap_future(started)

    async def inspect(self, sandbox: ids.SandboxId) -> provider.Inspection:
        """How the sandbox is; see `provider.Provider`."""
        return await asyncio.to_thread(self._inspect, sandbox)

    async def ended(self, sandbox: ids.SandboxId) -> None:
        """Return once it does not run; see `provider.Provider`."""
        process = await asyncio.to_thread(self._find, sandbox)
        if process is not None:
            await procs.ended(process)
        await asyncio.to_thread(self._spawner.reap)

    async def delete(self, sandbox: ids.SandboxId) -> None:
        """Remove it and everything in it; see `provider.Provider`."""
        await asyncio.to_thread(self._delete, sandbox)

    async def delete_home(self, machine: ids.MachineId) -> None:
        """Remove what its generations share; see `provider.Provider`."""
        await asyncio.to_thread(self._delete_home, machine)

    async def sandboxes(self) -> list[provider.Found]:
        """Every sandbox there is a trace of; see `provider.Provider`."""
        return await asyncio.to_thread(self._list)

    async def has(self, sandbox: ids.SandboxId) -> bool:
        """Whether there is a trace of it; see `provider.Provider`."""
        folder = self.records.folder(sandbox)
        record = folder.load()
        return folder.path.exists() and (record is None or record.provider == self.name)

    async def tidy(self) -> None:
        """Reap who ended and keep boot logs within bounds; see `provider.Provider`."""
        await asyncio.to_thread(self._tidy)

    async def log(self, sandbox: ids.SandboxId, *, tail_bytes: int) -> provider.Log:
        """The end of its boot log; see `provider.Provider`."""
        folder = self.records.folder(sandbox)
        if not folder.path.exists():
            raise errors.NotFound(f"cannot read the log of sandbox {sandbox}: it is not here")
        content, size = await asyncio.to_thread(folder.log_end, tail_bytes)
        return provider.Log(text=content.decode(errors="replace"), size_bytes=size)

    def close(self) -> None:
        """Let go of the threads. Sandboxes stay."""
        self._starters.shutdown(wait=True)

    def _create_and_close(self, spec: provider.SandboxSpec, booting: int) -> provider.Created:
        try:
            return self._create(spec, booting)
        finally:
            os.close(booting)

    def _create(self, spec: provider.SandboxSpec, booting: int) -> provider.Created:
        sandbox = spec.sandbox_id
        with self.records.lock(spec.machine_id):
            if (known := self._find(sandbox)) is not None:
                return provider.Created(external_id=self._note(sandbox, known).external_id, is_new=False)
            self._refuse_second(spec)
            folder = self.records.make(sandbox)
            folder.status_file.unlink(missing_ok=True)  # it tells of an earlier start
            record = self._new_record(sandbox)
            folder.save(record)
            try:
                self._inject(spec)
                process, waiter = self._launch(spec, folder, booting)
            except OSError as error:
                raise errors.ProviderFailed(
                    f"cannot start sandbox {sandbox}: {error.strerror or error}", detail=repr(error)
                ) from error
            record = msgspec.structs.replace(record, process=process, waiter=waiter)
            folder.save(record)
            return provider.Created(external_id=record.external_id, is_new=True)

    def _refuse_second(self, spec: provider.SandboxSpec) -> None:
        for other in self.records.sandboxes_of(spec.machine_id):
            if other != spec.sandbox_id and self._find(other) is not None:
                raise errors.Conflict(
                    f"cannot start sandbox {spec.sandbox_id}: {other} of the same machine runs"
                )

    def _new_record(self, sandbox: ids.SandboxId) -> records.Record:
        return records.Record(
            sandbox_id=sandbox,
            provider=self.name,
            created_at_ms=self._clock.now_ms(),
            host_boot_id=procs.host_boot_id(),
        )

    def _note(self, sandbox: ids.SandboxId, process: procs.Process) -> records.Record:
        """The record with its process in it, on disk."""
        folder = self.records.folder(sandbox)
        record = folder.load() or self._new_record(sandbox)
        if record.process != process:
            record = msgspec.structs.replace(record, process=process)
            folder.save(record)
        return record

    def _inject(self, spec: provider.SandboxSpec) -> None:
        inside = self._home_inside(spec.machine_id)
        boot = homes.Boot(
            machine_id=spec.machine_id,
            generation=spec.generation,
            sandbox_id=spec.sandbox_id,
            bus_url=spec.bus_url,
            credentials_file=str(inside / homes.FOLDER / homes.CREDENTIALS_FILE),
            node_name=spec.node,
            inbox_prefix=f"_INBOX_{spec.sandbox_id}",
        )
        homes.inject(self.records.home(spec.machine_id), boot, spec.credentials)

    def _environment(self, machine: ids.MachineId) -> dict[str, str]:
        """All the supervisor gets; never a secret, for every process list shows it."""
        home = self._home_inside(machine)
        return {
            "HOME": str(home),
            "PADDOCK_HOME": str(home / homes.FOLDER),
            "PATH": f"{home}/.local/bin:{self.daemon.search_path}",
            "LANG": _LOCALE,
            boots.BOOTED_VARIABLE: str(boots.BOOTED_FD),
            "USER": "machine",
            "LOGNAME": "machine",
        }

    def _find(self, sandbox: ids.SandboxId) -> procs.Process | None:
        """The sandbox's living supervisor, also one nobody came to note."""
        folder = self.records.folder(sandbox)
        if not folder.path.exists():
            return None
        record = folder.load()
        if record is not None and record.host_boot_id != procs.host_boot_id():
            return None
        if record is not None and record.process is not None:
            return record.process if procs.is_alive(record.process) else None
        return self._search(sandbox, folder.status().child_pid)

    def _search(self, sandbox: ids.SandboxId, hint: int | None) -> procs.Process | None:
        for pid in [hint] if hint else procs.everyone():
            if self._is_ours(pid, sandbox) and self._is_supervisor(pid, sandbox):
                return procs.identify(pid)
        return None

    def _is_ours(self, pid: int, sandbox: ids.SandboxId) -> bool:
        """Whether its command line is that of this sandbox's supervisor; anybody could have written that."""
        return procs.command_line(pid)[-3:] == runtime.supervise_arguments(sandbox)[-3:]

    def _inspect(self, sandbox: ids.SandboxId) -> provider.Inspection:
        self._spawner.reap()
        folder = self.records.folder(sandbox)
        record = folder.load()
        if not folder.path.exists():
            return provider.Inspection(state="vanished", reason=f"there is no sandbox {sandbox} on this node")
        if record is not None and record.host_boot_id != procs.host_boot_id():
            return provider.Inspection(
                state="vanished", reason="the host was restarted", log_tail=endings.log_tail(folder)
            )
        if self._find(sandbox) is not None:
            return provider.Inspection(state="running")
        self._await_last_word(record)
        return provider.Inspection(
            state="exited", reason=endings.why(folder), log_tail=endings.log_tail(folder)
        )

    @staticmethod
    def _await_last_word(record: records.Record | None) -> None:
        if record is not None and record.waiter is not None:
            procs.wait(record.waiter, until_s=time.monotonic() + LAST_WORD_S)

    def _delete(self, sandbox: ids.SandboxId) -> None:
        if not self.records.folder(sandbox).path.exists():
            return
        until_s = time.monotonic() + DELETE_S
        with self.records.lock(ids.split_sandbox(sandbox)[0]):
            if not self._kill(sandbox, self._find(sandbox), until_s=until_s):
                raise errors.ProviderFailed(
                    f"cannot delete sandbox {sandbox}: it still runs after {DELETE_S:.0f} s"
                )
            self._await_last_word(self.records.folder(sandbox).load())
            self._spawner.reap()
            self.records.remove(sandbox)

    def _delete_home(self, machine: ids.MachineId) -> None:
        if not self.records.home(machine).parent.exists():
            return
        with self.records.lock(machine):
            if left := self.records.sandboxes_of(machine):
                raise errors.Conflict(
                    f"cannot remove the home of machine {machine}: sandbox {left[0]} is still there"
                )
            self.records.remove_home(machine)

    def _list(self) -> list[provider.Found]:
        self._spawner.reap()
        found = (self._found(sandbox) for sandbox in self.records.sandboxes())
        return [one for one in found if one is not None]

    def _tidy(self) -> None:
        self._spawner.reap()
        for sandbox in self.records.sandboxes():
            with contextlib.suppress(OSError):
                self.records.folder(sandbox).trim_log(LOG_BYTES_MAX)

    def _found(self, sandbox: ids.SandboxId) -> provider.Found | None:
        folder = self.records.folder(sandbox)
        record = folder.load()
        if record is not None:
            if record.provider != self.name:
                return None
            return provider.Found(
                sandbox_id=sandbox, external_id=record.external_id, created_at_ms=record.created_at_ms
            )
        # Its start was cut short before there was a record.
        if (made_at_ms := folder.made_at_ms()) is None:
            return None
        return provider.Found(sandbox_id=sandbox, external_id="", created_at_ms=made_at_ms)


def _be_nice(by: int) -> None:
    if by:
        os.setpriority(os.PRIO_PROCESS, 0, by)
