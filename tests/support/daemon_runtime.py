"""The real daemon as production has it: installed, not linked, with only what it needs; built once per state of its sources.

`make` keeps one in build/daemon-venv; when the sources changed since, another is made beside it. Parallel test processes
wait for one another, and nobody's runtime changes under a running sandbox.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
MEMBERS = ("contracts", "bus", "daemon")
KEPT = 3
"""Older ones may still be in use by another run of the tests."""
_STAMP = ".sources"


@functools.cache
def venv() -> pathlib.Path:
    """A virtual environment with the daemon as its sources are now."""
    digest = _digest()
    shared = ROOT / "build" / "daemon-venv"
    if _is_current(shared, digest):
        return shared
    with _locked(ROOT / "build" / ".test-daemon.lock"):
        own = ROOT / "build" / f"test-daemon-{digest[:16]}"
        if not _is_current(own, digest):
            _forget_old()
            _build(own)
            (own / _STAMP).write_text(digest)
        return own


def _digest() -> str:
    """As the Makefile computes it: `sha256sum` over the list of files and their sums."""
    found = ["uv.lock"]
    for member in MEMBERS:
        found += [str(path.relative_to(ROOT)) for path in (ROOT / member).rglob("*.py")]
        found += [str(path.relative_to(ROOT)) for path in (ROOT / member).rglob("pyproject.toml")]
    lines = (f"{hashlib.sha256((ROOT / name).read_bytes()).hexdigest()}  {name}\n" for name in sorted(found))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _is_current(folder: pathlib.Path, digest: str) -> bool:
    stamp = folder / _STAMP
    return stamp.exists() and stamp.read_text().strip() == digest and (folder / "bin/python").exists()


def _build(folder: pathlib.Path) -> None:
    uv = str(ROOT / ".tools/bin/uv") if (ROOT / ".tools/bin/uv").exists() else shutil.which("uv")
    if uv is None:
        raise FileNotFoundError("cannot build the daemon's runtime: there is no uv; `make ready` brings it")
    reinstalled = [part for member in MEMBERS for part in ("--reinstall-package", f"paddock-{member}")]
    done = subprocess.run(
        [
            uv,
            "sync",
            "--quiet",
            "--frozen",
            "--no-editable",
            "--no-dev",
            "--package",
            "paddock-daemon",
            *reinstalled,
        ],
        cwd=ROOT,
        env={**_environment(), "UV_PROJECT_ENVIRONMENT": str(folder), "UV_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"cannot build the daemon's runtime: {done.stderr[-2000:]}")


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}


def _forget_old() -> None:
    built = sorted(
        (ROOT / "build").glob("test-daemon-*"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for folder in built[KEPT - 1 :]:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
