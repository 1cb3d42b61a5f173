"""Sandboxes that are none: the supervisor as a plain process of this host, for development where bubblewrap cannot run.

What runs in there can read and do whatever we can. Only for who asked for it (`unsafe_process_provider`).
"""

import contextlib
import pathlib
import signal
import time

from paddock.contracts import errors, ids
from paddock.provisioner.providers import boots, homes, host, procs, provider, records


class Process(host.HostProvider):
    """The provider `process`."""

    name = "process"
    notes_exits = True

    async def available(self) -> str | None:
        """Always: any host runs processes."""
        return None

    def _home_inside(self, machine: ids.MachineId) -> pathlib.Path:
        return self.records.home(machine)

    def _launch(
        self, spec: provider.SandboxSpec, folder: records.Folder, booting: int
    ) -> tuple[procs.Process, procs.Process | None]:
        argv = self.daemon.supervise(spec.sandbox_id)
        pid = self._spawner.spawn(
            folder, argv, self._environment(spec.machine_id), (booting, boots.BOOTED_FD)
        )
        process = procs.identify(pid)
        if process is None:
            self._spawner.reap()
            raise errors.ProviderFailed(
                f"cannot start sandbox {spec.sandbox_id}: its supervisor ended at once"
            )
        return process, None

    def _is_supervisor(self, pid: int, sandbox: ids.SandboxId) -> bool:
        return self._is_at_home(pid, ids.split_sandbox(sandbox)[0])

    def _is_at_home(self, pid: int, machine: ids.MachineId) -> bool:
        home = self.records.home(machine)
        return not {f"HOME={home}", f"PADDOCK_HOME={home / homes.FOLDER}"}.isdisjoint(procs.environment(pid))

    def _kill(self, sandbox: ids.SandboxId, process: procs.Process | None, *, until_s: float) -> bool:
        if process is not None and not self._kill_tree(process, until_s=until_s):
            return False
        return self._kill_leftovers(ids.split_sandbox(sandbox)[0], until_s=until_s)

    def _kill_tree(self, top: procs.Process, *, until_s: float) -> bool:
        """End all below the supervisor, then it. It is stopped first: it inherits orphans, so none gets away."""
        with procs.handle(top) as descriptor:
            if descriptor is None:
                return True
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGSTOP)
            while below := procs.descendants(top.pid):
                if not _kill_all(below, until_s=until_s):
                    return False
        return procs.kill(top, until_s=until_s)

    def _kill_leftovers(self, machine: ids.MachineId, *, until_s: float) -> bool:
        """End what a supervisor that was killed itself left behind, as far as it kept its environment."""
        while left := [
            pid for pid in procs.everyone() if self._is_at_home(pid, machine) and procs.identify(pid)
        ]:
            if not _kill_all(left, until_s=until_s):
                return False
        return True


def _kill_all(pids: list[int], *, until_s: float) -> bool:
    alive = [process for pid in pids if (process := procs.identify(pid)) is not None]
    return all(procs.kill(process, until_s=until_s) for process in alive) and time.monotonic() < until_s
