"""A real nats-server for tests: operator mode, JetStream, everything in one directory, up in milliseconds.

Synchronous, so fixtures and plain code can use it; it blocks for some 20 ms at start.
"""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from types import TracebackType

from paddock.bus import accounts, credentials, rights

START_S = 10.0
_POLL_S = 0.002


def binary() -> str:
    """The nats-server beside this Python, else the one on PATH."""
    beside = pathlib.Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("cannot find nats-server: neither beside this Python nor on PATH")
    return found


class NatsServer:
    """One server and its data in `directory`; `restart` and `kill` + `start` keep both port and data."""

    def __init__(self, directory: pathlib.Path, realm: accounts.Realm | None = None) -> None:
        self.directory = directory
        self.realm = realm or accounts.Realm.create()
        self.log_path = directory / "nats.log"
        self._config_path = directory / "nats.conf"
        self._port = -1  # the server picks a free one and says which in its ports file
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> "NatsServer":
        """Start it and return when clients can connect."""
        self._config_path.write_text(self._config())
        deadline = time.monotonic() + START_S
        while not self._started(deadline):
            # Somebody got the port while we were down: theirs is short-lived, ours is known to the clients.
            if time.monotonic() > deadline:
                raise RuntimeError(f"cannot start nats-server: {self.log()[-2000:]}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Ask it to end, as an operator would; does nothing when it is down."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL: what was not on disk is gone."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it and start it again on the same port with the same data."""
        self.stop()
        self.start()

    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def daemon_creds(self, sandbox: str, *, ttl_s: int = 3600) -> accounts.IssuedCredential:
        """What the registrar would issue to the daemon of `sandbox`."""
        realm = self.realm
        return accounts.daemon_creds(realm.sign_daemon.seed, realm.fleet.public, sandbox, ttl_s=ttl_s)

    def onlooker_creds(self) -> str:
        """A user of APP who may do everything there: for looking on, never for what is tested."""
        user = credentials.new_user_key()
        everything = {"allow": [">"]}
        claims = {"type": "user", "version": 2, "issuer_account": self.realm.app.public, **rights.UNLIMITED}
        jwt = credentials.mint(
            self.realm.sign_services,
            subject=user.public,
            name="onlooker",
            claims={**claims, "pub": everything, "sub": everything},
            issued_at_s=self.realm.time.now_ms() // 1000,
        )
        return credentials.creds_text(jwt, user.seed)

    def __enter__(self) -> "NatsServer":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _config(self) -> str:
        store = json.dumps(str(self.directory / "js"))
        return (
            f'listen: "127.0.0.1:{self._port}"\n'
            f"server_name: {json.dumps(self.directory.name)}\n"
            f"ports_file_dir: {json.dumps(str(self.directory))}\n"
            f"log_file: {json.dumps(str(self.log_path))}\n"
            f"jetstream {{ store_dir: {store}, max_mem: 256MB, max_file: 8GB }}\n"
            + self.realm.server_config(self.directory / "jwt")
        )

    def _started(self, deadline: float) -> bool:
        process = subprocess.Popen(
            [binary(), "-c", str(self._config_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._process = process
        ports = self.directory / f"nats-server_{process.pid}.ports"
        while process.poll() is None and time.monotonic() < deadline:
            if (found := _port_in(ports)) is not None:
                self._port = found
                return True
            time.sleep(_POLL_S)
        self.kill()
        return False

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # A killed server leaves its ports file, and pids come again.
        for left in self.directory.glob("*.ports"):
            left.unlink()


def _port_in(path: pathlib.Path) -> int | None:
    """The client port in a ports file; None while it is missing or half written."""
    try:
        urls = json.loads(path.read_text())["nats"]
    except (FileNotFoundError, ValueError):
        return None
    return int(urls[0].rsplit(":", 1)[1])
