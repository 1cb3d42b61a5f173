"""What the fake gateway's machines can do: commands that a test speaks for, and files in memory."""

import asyncio
import base64
import collections
import contextlib
import fnmatch
import hashlib
import posixpath
from collections.abc import Callable
from typing import Any

from paddock.contracts import errors
from paddock.contracts.api import base, executions, files

MOMENT = "2027-01-15T08:00:00.000Z"


class FakeExecution:
    """One command. It writes what the test says, and reads stdin while `takes` lasts (None: everything)."""

    def __init__(self, asked: executions.MachineExecStart) -> None:
        self.asked = asked
        self.written: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self.kept_from = {"stdout": 0, "stderr": 0}
        self.stdin = bytearray()
        self.takes: int | None = None
        self.is_stdin_closed = not (asked.stdin or asked.pty)
        self.signals: list[str] = []
        self.sizes: list[tuple[int, int]] = [(asked.columns, asked.rows)]
        self.on_stdin: Callable[[bytes], None] = lambda data: None
        self.on_signal: Callable[[str], None] = lambda name: None
        self.waits = 0
        self.end_of: dict[str, Any] | None = None
        self._changed: set[asyncio.Event] = set()

    def say(self, data: bytes) -> None:
        """Write to stdout."""
        self.written["stdout"] += data
        self.change()

    def complain(self, data: bytes) -> None:
        """Write to stderr."""
        self.written["stderr"] += data
        self.change()

    def end(self, exit_code: int | None = 0, **how: Any) -> None:
        """End it, by an exit code or as `signal=`, `lost=` … say."""
        self.end_of = {"state": "ended", "exit_code": exit_code, "ended_at": MOMENT, **how}
        self.change()

    def change(self) -> None:
        """Wake everybody who waits for it."""
        for event in self._changed:
            event.set()

    async def until(self, is_so: Callable[[], bool], within_s: float = 15.0) -> None:
        """Wait for something about it to become so."""
        event = asyncio.Event()
        self._changed.add(event)
        try:
            async with asyncio.timeout(within_s):
                while not is_so():
                    event.clear()
                    await event.wait()
        finally:
            self._changed.discard(event)

    def shown(self) -> executions.Execution:
        return executions.Execution(
            id=self.asked.id or "",
            command=self.asked.command,
            began_at=MOMENT,
            pid=7,
            pty=self.asked.pty,
            stdout_bytes=len(self.written["stdout"]),
            stderr_bytes=len(self.written["stderr"]),
            stdout_from=self.kept_from["stdout"],
            stderr_from=self.kept_from["stderr"],
            stdin_bytes=len(self.stdin),
            **(self.end_of or {"state": "running"}),
        )

    def take(self, offset: int | None, data: bytes, *, eof: bool) -> int:
        """Take stdin as a machine does: nothing twice, and no more than it reads."""
        if self.end_of is not None:
            raise errors.NotRunning(f"cannot write to command {self.asked.id}: it has ended")
        begin = len(self.stdin) if offset is None else offset
        if begin > len(self.stdin):
            raise errors.BadOffset(data={"sizeBytes": len(self.stdin)})
        fresh = data[len(self.stdin) - begin :]
        if self.is_stdin_closed and (fresh or not eof):
            raise errors.StdinClosed(f"cannot write to command {self.asked.id}: its stdin is closed")
        part = fresh if self.takes is None else fresh[: self.takes]
        if self.takes is not None:
            self.takes -= len(part)
        self.stdin += part
        if part:
            self.on_stdin(part)
        self.is_stdin_closed = self.is_stdin_closed or (eof and len(part) == len(fresh))
        self.change()
        return len(self.stdin)

    def check_kept(self, stream: str, offset: int) -> None:
        size = {"sizeBytes": len(self.written[stream])}
        if offset > len(self.written[stream]):
            raise errors.BadOffset(f"cannot read {stream} from {offset}: it is not that long", data=size)
        if offset < self.kept_from[stream]:
            raise errors.OutputLimit(data={"firstOffset": self.kept_from[stream], **size})


class FakeTools:
    """The part of the fleet that is inside its machines; which machine makes no difference."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, int]] = {}
        self.folders: set[str] = {"/", "/tmp", "~"}
        self.uploads: dict[str, tuple[str, bytearray]] = {}
        self.executions: dict[str, FakeExecution] = {}
        self.on_exec: Callable[[FakeExecution], None] = lambda execution: None
        """Called for each command that is started."""
        self.started = asyncio.Event()
        self.versions: collections.Counter[str] = collections.Counter()
        self.disk_bytes = 1 << 40
        self.bytes_uploaded = self.bytes_offered = 0
        self.takes_parts: int | None = None
        """Of uploads; with none left the machine takes nothing, and `is_stalled` is set."""
        self.is_stalled = asyncio.Event()
        self.wrong_digests: dict[str, str] = {}
        self._done: dict[str, Any] = {}

    async def before(self, method: str, asked: Any) -> None:
        """What a machine waits for before it answers."""
        execution = self.executions.get(getattr(asked, "id", None) or "")
        if execution is None:
            return
        if method == "machine.execWait":
            execution.waits += 1
            execution.change()
            with contextlib.suppress(TimeoutError):
                await execution.until(lambda: execution.end_of is not None, within_s=asked.wait_s)
        if method == "machine.execWrite" and execution.takes == 0:
            with contextlib.suppress(TimeoutError):
                await execution.until(lambda: execution.takes != 0 or execution.end_of is not None, 0.02)

    def execution(self, exec_id: str) -> FakeExecution:
        if exec_id not in self.executions:
            raise errors.NotFound(f"cannot find command {exec_id}")
        return self.executions[exec_id]

    def _machine_exec_start(self, asked: executions.MachineExecStart) -> executions.Execution:
        assert asked.id is not None
        known = self.executions.get(asked.id)
        if known is not None and known.asked.model_copy(update={"background": asked.background}) != asked:
            raise errors.Conflict(f"cannot start command {asked.id}: the id was used for another")
        if known is None:
            known = self.executions[asked.id] = FakeExecution(asked)
            self.on_exec(known)
            self.started.set()
        return known.shown()

    def _machine_exec_write(self, asked: executions.MachineExecWrite) -> executions.ExecWritten:
        data = base64.b64decode(asked.content) if asked.encoding == "base64" else asked.content.encode()
        return executions.ExecWritten(
            accepted=self.execution(asked.id).take(asked.offset, data, eof=asked.eof)
        )

    def _machine_exec_resize(self, asked: executions.MachineExecResize) -> base.Done:
        execution = self.execution(asked.id)
        if not execution.asked.pty:
            raise errors.NotATerminal(f"cannot resize command {asked.id}: it has no terminal")
        execution.sizes.append((asked.columns, asked.rows))
        execution.change()
        return base.Done()

    def _machine_exec_signal(self, asked: executions.MachineExecSignal) -> base.Done:
        execution = self.execution(asked.id)
        if execution.end_of is not None:
            raise errors.NotRunning(f"cannot send a signal to command {asked.id}: it has ended")
        execution.signals.append(asked.signal)
        execution.on_signal(asked.signal)
        execution.change()
        return base.Done()

    def _machine_exec_wait(self, asked: executions.MachineExecWait) -> executions.Execution:
        return self.execution(asked.id).shown()

    def _machine_exec_list(self, asked: executions.MachineExecList) -> executions.Executions:
        newest = [
            one.shown()
            for one in reversed(self.executions.values())
            if one.end_of is None or not asked.running_only
        ]
        names = [one.id for one in newest]
        begin = names.index(asked.before) + 1 if asked.before else 0
        end = begin + asked.limit
        return executions.Executions(executions=newest[begin:end], is_last=end >= len(newest))

    def _machine_exec_output(self, asked: executions.MachineExecOutput) -> executions.ExecOutput:
        execution = self.execution(asked.id)
        execution.check_kept(asked.stream, asked.offset)
        part = bytes(execution.written[asked.stream][asked.offset : asked.offset + asked.length])
        return executions.ExecOutput(
            offset=asked.offset,
            content=base64.b64encode(part).decode(),
            encoding="base64",
            first_offset=execution.kept_from[asked.stream],
            size_bytes=len(execution.written[asked.stream]),
            is_ended=execution.end_of is not None,
        )

    def _machine_exec_summary(self, asked: executions.MachineExecSummary) -> executions.ExecSummary:
        execution = self.execution(asked.id)
        half = asked.limit_bytes // 2
        shown = {name: _head_and_tail(bytes(data), half) for name, data in execution.written.items()}
        return executions.ExecSummary(
            execution=execution.shown(),
            stdout=shown["stdout"][0],
            stderr=shown["stderr"][0],
            stdout_omitted_bytes=shown["stdout"][1],
            stderr_omitted_bytes=shown["stderr"][1],
        )

    def info(self, path: str) -> files.FileInfo:
        """What a path is.

        Raises:
            errors.NoSuchPath: Nothing is there.
        """
        content, mode = self.files.get(path, (b"", 0o755))
        if path not in self.files and path not in self.folders:
            raise errors.NoSuchPath(f"cannot look at {path}: it does not exist")
        digest = hashlib.sha256(content).hexdigest()
        return files.FileInfo(
            path=path,
            name=posixpath.basename(path),
            kind="file" if path in self.files else "directory",
            size=len(content),
            mode=mode,
            modified_at=MOMENT,
            version=f"{self.versions[path]}-{len(content)}-{digest[:8]}",
        )

    def content(self, asked: files.MachineFileRead) -> tuple[files.FileInfo, bytes]:
        """A file that is to be read."""
        info = self.info(asked.path)
        if info.kind != "file":
            raise errors.IsADirectory(f"cannot read {asked.path}: it is a directory")
        if asked.version not in {"", info.version}:
            raise errors.Conflict(f"cannot go on reading {asked.path}: it is another file now")
        if asked.offset > info.size:
            raise errors.BadOffset(data={"sizeBytes": info.size})
        return info, self.files[asked.path][0]

    def upload(self, asked: files.MachineFileWrite) -> bytearray:
        """What is there of an upload."""
        folder = posixpath.dirname(asked.path)
        if asked.path in self.folders:
            raise errors.IsADirectory(f"cannot write {asked.path}: it is a directory")
        if folder not in self.folders and not asked.parents:
            raise errors.NoSuchPath(f"cannot write {asked.path}: {folder} does not exist")
        return self.uploads.setdefault(asked.upload, (asked.path, bytearray()))[1]

    def take_part(self, upload: bytearray, offset: int, data: memoryview) -> None:
        """One part of an upload; nothing is taken twice.

        Raises:
            errors.BadOffset: There is a gap before it.
            errors.DiskFull: It does not fit.
        """
        if self.takes_parts is not None:
            self.takes_parts -= 1
        if offset > len(upload):
            raise errors.BadOffset(data={"sizeBytes": len(upload)})
        if offset + len(data) > self.disk_bytes:
            raise errors.DiskFull("cannot write the upload: the machine's disk is full")
        upload += data[len(upload) - offset :]
        self.bytes_uploaded += len(data)

    def digest(self, path: str, content: bytes) -> str:
        """What the machine says is the digest of what it read."""
        return self.wrong_digests.get(path) or hashlib.sha256(content).hexdigest()

    def _machine_file_commit(self, asked: files.MachineFileCommit) -> files.FileInfo:
        committed: files.FileInfo = self._act_once(asked.call_id, lambda: self._commit(asked))
        return committed

    def _commit(self, asked: files.MachineFileCommit) -> files.FileInfo:
        if asked.upload not in self.uploads:
            raise errors.NotFound(f"cannot find upload {asked.upload}")
        content = bytes(self.uploads[asked.upload][1])
        if (len(content), hashlib.sha256(content).hexdigest()) != (asked.size, asked.sha256):
            del self.uploads[asked.upload]
            raise errors.Conflict(f"cannot put {asked.path} in place: what arrived is something else")
        self._expect(asked.path, asked.expected_sha256)
        del self.uploads[asked.upload]
        was = self.files.get(asked.path, (b"", 0o644))[1]
        self.put(asked.path, content, was if asked.mode is None else asked.mode)
        return self.info(asked.path).model_copy(update={"sha256": asked.sha256})

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """A file is there, another one than before."""
        self.files[path] = (content, mode)
        self.versions[path] += 1
        while (path := posixpath.dirname(path)) and path not in self.folders:
            self.folders.add(path)

    def _expect(self, path: str, expected: str | None) -> None:
        found = hashlib.sha256(self.files[path][0]).hexdigest() if path in self.files else "absent"
        if expected not in {None, found}:
            raise errors.Conflict(f"cannot write {path}: something else is there", data={"sha256": found})

    def _machine_file_abort(self, asked: files.MachineFileAbort) -> base.Done:
        self.uploads.pop(asked.upload, None)
        return base.Done()

    def _machine_file_stat(self, asked: files.MachineFileStat) -> files.FileInfo:
        info = self.info(asked.path)
        if not asked.digest:
            return info
        digest = hashlib.sha256(self.files[asked.path][0]).hexdigest()
        return info.model_copy(update={"sha256": digest})

    def _machine_file_list(self, asked: files.MachineFileList) -> files.FilePage:
        found = sorted(
            path for path in {*self.files, *self.folders} - {"/"} if posixpath.dirname(path) == asked.path
        )
        rest = [path for path in found if posixpath.basename(path) > asked.after]
        return files.FilePage(
            entries=[self.info(path) for path in rest[: asked.limit]], is_last=len(rest) <= asked.limit
        )

    def _machine_file_mkdir(self, asked: files.MachineFileMkdir) -> files.FileInfo:
        if asked.path in self.folders and not asked.parents:
            raise errors.PathExists(f"cannot make {asked.path}: it exists")
        self.folders.add(asked.path)
        return self.info(asked.path)

    def _machine_file_move(self, asked: files.MachineFileMove) -> files.FileInfo:
        if asked.to in self.files and not asked.overwrite:
            raise errors.PathExists(f"cannot move to {asked.to}: something is there")
        self.put(asked.to, *self.files.pop(asked.path))
        return self.info(asked.to)

    def _machine_file_remove(self, asked: files.MachineFileRemove) -> base.Done:
        self.info(asked.path)
        below = [path for path in {*self.files, *self.folders} if path.startswith(f"{asked.path}/")]
        if below and not asked.recursive:
            raise errors.NotEmpty(f"cannot remove {asked.path}: it is not empty")
        for path in (asked.path, *below):
            self.files.pop(path, None)
            self.folders.discard(path)
        return base.Done()

    def _machine_file_chmod(self, asked: files.MachineFileChmod) -> files.FileInfo:
        self.info(asked.path)
        self.files[asked.path] = (self.files[asked.path][0], asked.mode)
        return self.info(asked.path)

    def _machine_file_find(self, asked: files.MachineFileFind) -> files.FilesFound:
        found = sorted(
            path
            for path in {*self.files, *self.folders}
            if path.startswith(f"{asked.path.rstrip('/')}/")
            and fnmatch.fnmatch(posixpath.basename(path), asked.pattern)
        )
        entries = [self.info(path) for path in found[: asked.limit]]
        return files.FilesFound(entries=entries, is_complete=len(found) <= asked.limit)

    def _act_once(self, call_id: str | None, act: Callable[[], Any]) -> Any:
        assert call_id is not None
        if call_id not in self._done:
            self._done[call_id] = act()
        return self._done[call_id]


def _head_and_tail(data: bytes, half: int) -> tuple[str, int]:
    if len(data) <= 2 * half:
        return data.decode(errors="replace"), 0
    return (data[:half] + data[len(data) - half :]).decode(errors="replace"), len(data) - 2 * half
