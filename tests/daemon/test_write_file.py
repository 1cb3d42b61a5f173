"""tool.writeFile: whole or not at all, with a typed fault for each refusal."""

import asyncio
import base64
import ctypes
import hashlib
import os
import pathlib
import stat
import threading
from collections.abc import Callable

import pytest

from paddock.contracts import daemon, errors
from paddock.daemon import write_file
from tests.daemon import machine as machines

NOBODY = 65534


def write(path: object, content: str = "x", **more: object) -> daemon.WriteFileResult:
    home = str(path).partition("/home")[0] + "/home"
    return write_file.write(daemon.WriteFileParams(path=str(path), content=content, **more), home)  # type: ignore[arg-type]


def as_nobody(work: Callable[[], object]) -> object:
    """Run in a thread that has lost the rights of root over files, if we are root."""
    outcome: list[object] = []

    def run() -> None:
        ctypes.CDLL(None).setfsuid(NOBODY)
        try:
            outcome.append(work())
        except errors.Fault as fault:
            outcome.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome[0]


def test_it_makes_parents_and_answers_size_and_digest(home: pathlib.Path) -> None:
    result = write(home / "a/b/c.txt", "héllo\n")

    assert (home / "a/b/c.txt").read_text() == "héllo\n"
    assert result.bytes_written == 7
    assert result.sha256 == hashlib.sha256("héllo\n".encode()).hexdigest()
    assert result.path == str(home / "a/b/c.txt")


def test_tilde_is_the_home_directory(home: pathlib.Path) -> None:
    params = daemon.WriteFileParams(path="~/.paddock/.env", content="A=1\n", mode=0o600)
    result = write_file.write(params, str(home))

    assert result.path == str(home / ".paddock/.env")
    assert (home / ".paddock/.env").read_text() == "A=1\n"


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o755, 0o777])
def test_the_mode_is_exactly_the_one_given_whatever_the_umask(home: pathlib.Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        write(home / "f", mode=mode)
    finally:
        os.umask(before)

    assert stat.S_IMODE((home / "f").stat().st_mode) == mode


def test_base64_content_is_written_as_bytes(home: pathlib.Path) -> None:
    write(home / "f", base64.b64encode(bytes(range(256))).decode(), encoding="base64")

    assert (home / "f").read_bytes() == bytes(range(256))


def test_a_reader_of_the_old_file_keeps_it_whole(home: pathlib.Path) -> None:
    write(home / "f", "old" * 1000)
    with (home / "f").open() as reader:
        write(home / "f", "new")
        seen = reader.read()

    assert seen == "old" * 1000
    assert (home / "f").read_text() == "new"
    assert [path.name for path in home.iterdir()] == ["f"]


def test_a_symbolic_link_is_followed_and_stays(home: pathlib.Path) -> None:
    (home / "real").mkdir()
    (home / "real/f").write_text("old")
    (home / "link").symlink_to(home / "real/f")
    write(home / "link", "new")

    assert (home / "link").is_symlink()
    assert (home / "real/f").read_text() == "new"


def test_a_name_as_long_as_names_can_be_is_written(home: pathlib.Path) -> None:
    write(home / ("n" * 255), "x")

    assert (home / ("n" * 255)).read_text() == "x"


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("relative/f", errors.BadPath),
        ("~somebody/f", errors.BadPath),
        ("/tmp/../etc/f", errors.BadPath),
        ("~/a\0b", errors.BadPath),
        ("~/" + "n" * 256, errors.BadPath),
        ("~/\udc80\ud800", errors.BadPath),
        ("~", errors.IsADirectory),
        ("~/folder", errors.IsADirectory),
        ("~/folder/", errors.IsADirectory),
        ("~/new/", errors.IsADirectory),
        ("~/file/f", errors.NotADirectory),
        ("~/loop", errors.BadPath),
        ("~/loop/f", errors.BadPath),
        ("/dev/null", errors.BadPath),
        ("~/pipe", errors.BadPath),
        ("/proc/f", errors.NoSuchPath),
    ],
)
def test_a_path_that_cannot_be_written_is_a_typed_fault(
    home: pathlib.Path, path: str, fault: type[errors.Fault]
) -> None:
    (home / "folder").mkdir()
    (home / "file").write_text("mine")
    (home / "loop").symlink_to(home / "loop")
    os.mkfifo(home / "pipe")
    with pytest.raises(fault):
        write_file.write(daemon.WriteFileParams(path=path, content="x"), str(home))

    assert (home / "file").read_text() == "mine"
    assert not list(home.rglob(".paddock-*"))


@pytest.mark.parametrize("content", ["not base64!", "YQ", "YQ==\n"])
def test_broken_base64_is_refused_before_anything_is_touched(home: pathlib.Path, content: str) -> None:
    with pytest.raises(errors.InvalidParams):
        write(home / "a/f", content, encoding="base64")

    assert not (home / "a").exists()


def test_no_permission_is_said_so(home: pathlib.Path) -> None:
    home.chmod(0o555)
    fault = as_nobody(lambda: write(home / "f"))
    home.chmod(0o755)

    assert isinstance(fault, errors.PermissionDenied)
    assert fault.message == f"cannot write {home}/f: permission denied"


def test_a_full_disk_is_said_so_and_leaves_the_old_file(machine: machines.Machine) -> None:
    mount = machine.home / "small"
    mount.mkdir()
    tmpfs = machines.in_namespaces("--size", "65536", "--tmpfs", str(mount))
    script = f"""
import pathlib
from paddock.contracts import daemon, errors
from paddock.daemon import write_file
place = pathlib.Path({str(mount)!r}) / "f"
place.write_text("old")
try:
    write_file.write(daemon.WriteFileParams(path=str(place), content="x" * 100_000), "/")
except errors.DiskFull as fault:
    print(fault.kind, place.read_text(), len(list(place.parent.iterdir())), flush=True)
"""
    machine.start_python("-c", script, within=tmpfs).wait()

    assert machine.log_path.read_text() == "disk_full old 1\n"


def test_a_read_only_file_system_is_said_so(machine: machines.Machine) -> None:
    mount = machine.home / "fixed"
    mount.mkdir()
    read_only = machines.in_namespaces("--ro-bind", str(mount), str(mount))
    done = machine.tool("write-file", "fixed/f", stdin=b"x", within=read_only)

    assert done.returncode == 1
    assert done.stderr.startswith(b"paddockd: read_only: cannot write ")


async def test_writers_at_once_leave_one_of_their_files_whole(home: pathlib.Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        for letter in "abcdefgh":
            tasks.create_task(asyncio.to_thread(write, home / "f", letter * 200_000))

    assert len(set((home / "f").read_text())) == 1
    assert (home / "f").stat().st_size == 200_000
