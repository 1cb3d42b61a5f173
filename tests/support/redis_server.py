"""A real redis-server for tests, on a Unix socket, remembering nothing."""

import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from types import TracebackType

START_S = 10.0


class RedisServer:
    """One server; `stop` and `start` again give an empty one at the same address."""

    def __init__(self) -> None:
        # Socket paths are short: pytest's folders may be too deep.
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="pdkrd-"))
        self._socket = self._folder / "s"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> "RedisServer":
        beside = pathlib.Path(sys.executable).parent / "redis-server"
        binary = str(beside) if beside.exists() else "redis-server"
        options = ["--port", "0", "--unixsocket", str(self._socket), "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen(
            [binary, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        ends = time.monotonic() + START_S
        while not self._answers():
            assert time.monotonic() < ends, "redis-server did not start"
            time.sleep(0.005)
        return self

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            self._socket.unlink(missing_ok=True)

    def __enter__(self) -> "RedisServer":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as asking:
            try:
                asking.connect(str(self._socket))
            except OSError:
                return False
            asking.sendall(b"PING\r\n")
            return asking.recv(16).startswith(b"+PONG")
