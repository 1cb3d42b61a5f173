"""One upload on file systems that refuse: said so, nothing left behind, and what was received kept."""

import pytest

from tests.daemon import machine as machines


def test_a_full_disk_is_said_so_and_with_room_the_upload_goes_on(machine: machines.Machine) -> None:
    mount = machine.home / "small"
    mount.mkdir()
    script = f"""
import hashlib, os, pathlib
from paddock.contracts import errors, files
from paddock.daemon import file_upload
small = pathlib.Path({str(mount)!r})
(small / "f").write_text("old")
(small / "flood").write_bytes(b"x" * 700_000)
content = os.urandom(600_000)
upload = file_upload.Upload("u1", pathlib.Path({str(machine.folder)!r}) / "uploads", "/")
path, received, full = str(small / "f"), 0, 0
while received < len(content):
    part = content[received : received + 131072]
    [outcome] = upload.take([(files.WriteParams(path=path, upload="u1", offset=received), part)])
    if isinstance(outcome, errors.DiskFull):
        full += 1
        assert (small / "f").read_text() == "old"
        [part] = small.glob(".paddock-*.part")
        assert part.stat().st_size == received > 0
        (small / "flood").unlink()
    else:
        received = outcome.received
commit = files.CommitParams(path=path, upload="u1", size=len(content), sha256=hashlib.sha256(content).hexdigest())
list(upload.commit(commit))
print(full, (small / "f").read_bytes() == content, len(list(small.iterdir())), flush=True)
"""
    tmpfs = machines.in_namespaces("--size", str(1024 * 1024), "--tmpfs", str(mount))
    machine.start_python("-c", script, within=tmpfs).wait()

    assert machine.log_path.read_text() == "1 True 1\n"


@pytest.mark.parametrize("full", ["records", "target"])
def test_without_room_to_begin_it_is_said_so_and_nothing_is_left(
    machine: machines.Machine, full: str
) -> None:
    mount = machine.home / "small"
    mount.mkdir()
    records = mount / "records" if full == "records" else machine.folder / "uploads"
    target = machine.home / "f" if full == "records" else mount / "f"
    script = f"""
import pathlib
from paddock.contracts import errors, files
from paddock.daemon import file_upload
small, records = pathlib.Path({str(mount)!r}), pathlib.Path({str(records)!r})
records.mkdir()
try:
    (small / "flood").write_bytes(b"x" * 200_000)
except OSError:
    pass
upload = file_upload.Upload("u1", records, "/")
[outcome] = upload.take([(files.WriteParams(path={str(target)!r}, upload="u1"), b"x" * 100_000)])
parts = list(pathlib.Path({str(target.parent)!r}).glob(".paddock-*.part"))
print(outcome.kind, len(list(records.iterdir())) <= len(parts), flush=True)
"""
    tmpfs = machines.in_namespaces("--size", "65536", "--tmpfs", str(mount))
    machine.start_python("-c", script, within=tmpfs).wait()

    assert machine.log_path.read_text() == "disk_full True\n"


def test_a_read_only_file_system_is_said_so(machine: machines.Machine) -> None:
    mount = machine.home / "fixed"
    mount.mkdir()
    script = f"""
import pathlib
from paddock.contracts import files
from paddock.daemon import file_upload
records = pathlib.Path({str(machine.folder)!r}) / "uploads"
upload = file_upload.Upload("u1", records, "/")
[outcome] = upload.take([(files.WriteParams(path={str(mount / "f")!r}, upload="u1"), b"x")])
print(outcome.kind, list(records.iterdir()), flush=True)
"""
    read_only = machines.in_namespaces("--ro-bind", str(mount), str(mount))
    machine.start_python("-c", script, within=read_only).wait()

    assert machine.log_path.read_text() == "read_only []\n"


def test_a_target_that_moved_to_another_file_system_is_a_conflict(machine: machines.Machine) -> None:
    mount = machine.home / "other"
    mount.mkdir()
    script = f"""
import hashlib, pathlib
from paddock.contracts import errors, files
from paddock.daemon import file_upload
home, other = pathlib.Path({str(machine.home)!r}), pathlib.Path({str(mount)!r})
(home / "link").symlink_to(home / "f")
upload = file_upload.Upload("u1", home / ".paddock/uploads", "/")
upload.take([(files.WriteParams(path=str(home / "link"), upload="u1"), b"x")])
(home / "link").unlink()
(home / "link").symlink_to(other / "f")
commit = files.CommitParams(path=str(home / "link"), upload="u1", size=1, sha256=hashlib.sha256(b"x").hexdigest())
try:
    list(upload.commit(commit))
except errors.Conflict as fault:
    print(fault.kind, list(other.iterdir()), list(home.glob(".paddock-*.part")), flush=True)
"""
    machine.start_python("-c", script, within=machines.in_namespaces("--tmpfs", str(mount))).wait()

    assert machine.log_path.read_text() == "conflict [] []\n"
