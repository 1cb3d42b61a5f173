"""Real git remotes on this machine: bare repositories, by path or behind HTTP with a password."""

import base64
import contextlib
import os
import pathlib
import subprocess
import threading
from collections.abc import Iterator
from http import server

GIT_ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


def git(*arguments: str | pathlib.Path, cwd: pathlib.Path | None = None) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, env=GIT_ENV, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def bare(
    folder: pathlib.Path, name: str = "origin", branches: tuple[str, ...] = ("main", "side")
) -> pathlib.Path:
    """A bare repository with one commit on each branch; HEAD is the first."""
    work = folder / f"{name}-work"
    git("init", "-q", "-b", branches[0], work)
    for branch in branches:
        git("checkout", "-q", "-B", branch, cwd=work)
        (work / "README").write_text(f"{name} {branch}\n")
        git("add", "-A", cwd=work)
        git("commit", "-q", "-m", f"{name} {branch}", cwd=work)
    git("checkout", "-q", branches[0], cwd=work)
    target = folder / f"{name}.git"
    git("clone", "-q", "--bare", work, target)
    return target


class _Backend(server.BaseHTTPRequestHandler):
    """git http-backend behind Basic authentication; or a redirect to somewhere else."""

    root: pathlib.Path
    login: str
    redirect: str
    seen: list[str]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        given = self.headers.get("Authorization", "")
        self.seen.append(given)
        wanted = "Basic " + base64.b64encode(self.login.encode()).decode()
        if self.redirect:
            self._answer(302, {"Location": self.redirect + self.path})
        elif self.login and given != wanted:
            self._answer(401, {"WWW-Authenticate": 'Basic realm="git"'})
        else:
            self._backend()

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _backend(self) -> None:
        path, _, query = self.path.partition("?")
        env = {
            **GIT_ENV,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        status = int(headers.pop("Status", "200 OK").split()[0])
        self._answer(status, headers, content)


@contextlib.contextmanager
def over_http(root: pathlib.Path, *, login: str = "", redirect: str = "") -> Iterator[tuple[str, list[str]]]:
    """Serve the repositories in `root`. Yields the base URL and the Authorization headers seen so far."""
    seen: list[str] = []
    handler = type("Backend", (_Backend,), {"root": root, "login": login, "redirect": redirect, "seen": seen})
    httpd = server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}", seen
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
