"""What the providers of this host remember, on disk under one folder.

    sandboxes/<sandbox>/machine.json   who it is; written before it is started and again with its process
                        status.jsonl   who it is and how it ended, by whoever waits for it
                        boot.log       all it says
    machines/<machine>/home            its HOME, shared by its generations
                       lock            held (flock) while a sandbox of the machine is made or removed

A folder in `sandboxes` is made before the process and removed after its death, so the folders are the complete list.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import stat
from collections.abc import Iterator

import msgspec

from paddock.bus import files
from paddock.contracts import errors, ids
from paddock.provisioner.providers import procs


class Record(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One start of one sandbox. `process` is None until it is known; a crash in between leaves it so.

    `waiter` is who writes down how it ends, if that is not us.
    """

    sandbox_id: ids.SandboxId
    provider: str
    created_at_ms: int
    host_boot_id: str
    process: procs.Process | None = None
    waiter: procs.Process | None = None

    @property
    def external_id(self) -> str:
        return "" if self.process is None else f"pid-{self.process.pid}-{self.process.start_ticks}"


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What `status.jsonl` says in all its lines; bubblewrap writes it, and we for a child of ours."""

    child_pid: int | None = None
    exit_code: int | None = None


class Folder:
    """The folder of one sandbox."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.log = path / "boot.log"
        self.status_file = path / "status.jsonl"
        self._record_file = path / "machine.json"

    def load(self) -> Record | None:
        """The record, or None when there is none that can be read."""
        try:
            return msgspec.json.decode(self._record_file.read_bytes(), type=Record)
        except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
            return None

    def save(self, record: Record) -> None:
        # No sandbox outlives a reboot.
        files.write_private(self._record_file, msgspec.json.encode(record), outlives_power=False)

    def status(self) -> Status:
        known: dict[str, int | None] = {"child_pid": None, "exit_code": None}
        with contextlib.suppress(OSError):
            for line in self.status_file.read_bytes().splitlines():
                # The last line may be half written.
                with contextlib.suppress(msgspec.MsgspecError):
                    part = msgspec.json.decode(line, type=Status)
                    known["child_pid"] = part.child_pid or known["child_pid"]
                    known["exit_code"] = part.exit_code if part.exit_code is not None else known["exit_code"]
        return Status(**known)

    def note_exit(self, code: int) -> None:
        """Add how a child of ours ended, unless its folder is gone."""
        with contextlib.suppress(FileNotFoundError), self.status_file.open("ab") as stream:
            stream.write(msgspec.json.encode(Status(exit_code=code)) + b"\n")

    def made_at_ms(self) -> int | None:
        """When the folder was last changed; None when it is gone."""
        with contextlib.suppress(FileNotFoundError):
            return int(self.path.stat().st_mtime * 1000)
        return None

    def trim_log(self, limit_bytes: int) -> None:
        """Keep the second half of a boot log that outgrew its limit.

        Whoever writes into it appends, so it goes on after the cut; a line written in this very moment may be lost.
        """
        tail, size = self.log_end(limit_bytes // 2)
        if size > limit_bytes:
            with self.log.open("r+b") as stream:
                stream.truncate(0)
                stream.write(f"... {size - len(tail)} bytes were left out here\n".encode() + tail)

    def log_end(self, tail_bytes: int) -> tuple[bytes, int]:
        """The last bytes of the boot log, and its whole size."""
        try:
            with self.log.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(0, size - tail_bytes))
                return stream.read(tail_bytes), size
        except FileNotFoundError:
            return b"", 0


class Records:
    """The folders of all sandboxes of this host; any number of provisioners here may share them."""

    def __init__(self, data: pathlib.Path) -> None:
        # Links are resolved once: what a sandbox's command line names can then be compared with what we name.
        self._data = data.resolve()
        self._sandboxes = self._data / "sandboxes"
        self._machines = self._data / "machines"

    def folder(self, sandbox: ids.SandboxId) -> Folder:
        ids.split_sandbox(sandbox)  # it becomes a path: nothing but an id may
        return Folder(self._sandboxes / sandbox)

    def home(self, machine: ids.MachineId) -> pathlib.Path:
        return self._machines / ids.machine_id(machine) / "home"

    def sandboxes(self) -> list[ids.SandboxId]:
        """Every sandbox with a folder."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(_sandbox_ids(entry.name for entry in self._sandboxes.iterdir()))
        return []

    def sandboxes_of(self, machine: ids.MachineId) -> list[ids.SandboxId]:
        return [sandbox for sandbox in self.sandboxes() if ids.split_sandbox(sandbox)[0] == machine]

    def make(self, sandbox: ids.SandboxId) -> Folder:
        """The sandbox's folder, made if need be, and its machine's HOME."""
        folder = self.folder(sandbox)
        home = self.home(ids.split_sandbox(sandbox)[0])
        for path in (self._sandboxes, folder.path, home.parent, home):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def remove(self, sandbox: ids.SandboxId) -> None:
        """Forget a sandbox whose process is dead."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder(sandbox).path)

    def remove_home(self, machine: ids.MachineId) -> None:
        """Remove all that is kept of a machine, whatever modes its files have.

        Raises:
            errors.ProviderFailed: Something could not be removed.
        """
        top = self._machines / ids.machine_id(machine)
        if not top.exists():
            return
        _open_folders(top)
        try:
            shutil.rmtree(top)
        except OSError as error:
            raise errors.ProviderFailed(
                f"cannot remove the home of machine {machine}: {error.strerror}", detail=str(error)
            ) from error

    @contextlib.contextmanager
    def lock(self, machine: ids.MachineId) -> Iterator[None]:
        """Hold one machine's sandboxes still. Blocking; held by calls that have deadlines of their own."""
        path = self.home(machine).with_name("lock")
        while True:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # removed with its home in this very moment
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if _is_same(descriptor, path):
                    yield
                    return
            finally:
                os.close(descriptor)


def _sandbox_ids(names: Iterator[str]) -> Iterator[ids.SandboxId]:
    for name in names:
        with contextlib.suppress(errors.InvalidParams):
            ids.split_sandbox(name)
            yield ids.SandboxId(name)


def _is_same(descriptor: int, path: pathlib.Path) -> bool:
    # The lock of a removed home is nobody's: whoever waited for it has to take the new one.
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _open_folders(top: pathlib.Path) -> None:
    """Give ourselves the folders a machine closed to its own user (chmod 000), so that they can be emptied."""
    for base, names, _files, descriptor in os.fwalk(top, onerror=None, follow_symlinks=False):
        del base
        for name in names:
            with contextlib.suppress(OSError):
                is_link = stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)
                if not is_link:
                    os.chmod(name, 0o700, dir_fd=descriptor)
