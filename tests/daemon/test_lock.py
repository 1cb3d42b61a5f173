"""One holder at a time, whatever stands in the file."""

import os
import pathlib
import subprocess
import sys

import pytest

from paddock.daemon import lock


@pytest.mark.parametrize("content", [b"", b"garbage\n", b"\xff\xfe", b"1\n"])
def test_what_stands_in_the_file_decides_nothing(tmp_path: pathlib.Path, content: bytes) -> None:
    path = tmp_path / "daemon.lock"
    path.write_bytes(content)
    fd = lock.take(path)

    assert path.read_text() == f"{os.getpid()}\n"
    os.close(fd)


def test_a_second_holder_is_refused_and_told_who_the_first_is(tmp_path: pathlib.Path) -> None:
    fd = lock.take(tmp_path / "daemon.lock")
    with pytest.raises(lock.TakenError, match=f"process {os.getpid()} holds it"):
        lock.take(tmp_path / "daemon.lock")
    os.close(fd)

    os.close(lock.take(tmp_path / "daemon.lock"))


def test_a_killed_holder_holds_nothing_and_its_children_never_did(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "daemon.lock"
    script = (
        "import subprocess, sys; from paddock.daemon import lock; lock.take(sys.argv[1]);"
        "child = subprocess.Popen(['sleep', '60'], close_fds=False, stdout=subprocess.DEVNULL);"
        "print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        with pytest.raises(lock.TakenError):
            lock.take(path)
        holder.kill()
        holder.wait()
        os.close(lock.take(path))
        os.kill(child, 9)
