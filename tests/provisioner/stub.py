"""A daemon that is none: a supervisor that runs HOME/workload.sh and keeps what it starts, as the real one does.

Tests of the providers are about what surrounds the daemon; with this one they need no build and no bus.
"""

import pathlib
import sys

SUPERVISOR = """
import ctypes, os, pathlib, signal, subprocess, sys

ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
print("supervising", *sys.argv[1:], flush=True)
home = pathlib.Path(os.environ["HOME"])
if (home / "workload.sh").exists():
    subprocess.Popen(["/bin/sh", str(home / "workload.sh")], start_new_session=True)
if (home / "end").exists():
    word = (home / "end").read_text().strip()
    print('{"service":"supervise","event":"daemon_done","detail":"%s"}' % word, flush=True)
    print("a line of somebody else's", flush=True)
    sys.exit(7)
while True:
    try:
        os.wait()
    except ChildProcessError:
        signal.pause()
"""


def install(venv: pathlib.Path) -> pathlib.Path:
    """A virtual environment with nothing in it but this daemon."""
    packages = (
        venv / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages/paddock/daemon"
    )
    packages.mkdir(parents=True)
    (packages / "__init__.py").write_text("")
    (packages / "__main__.py").write_text(SUPERVISOR)
    (venv / "bin").mkdir()
    base = pathlib.Path(sys.base_prefix) / "bin"
    (venv / "bin" / "python").symlink_to(base / pathlib.Path(sys.executable).resolve().name)
    (venv / "pyvenv.cfg").write_text(f"home = {base}\ninclude-system-site-packages = false\n")
    return venv
