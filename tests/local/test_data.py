"""What a data folder promises: one user at a time, secrets for their owner only, everything chosen once."""

import pathlib
import stat
import subprocess
import sys

import pytest

from paddock.contracts import errors
from paddock.local import data

HOLDER = """
import pathlib, sys
from paddock.local import data
with data.DataFolder(pathlib.Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_stack_is_refused_and_told_who_holds_the_folder(tmp_path: pathlib.Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"

        with (
            pytest.raises(errors.InUse, match=f"process {other.pid} uses it"),
            data.DataFolder(tmp_path).locked(),
        ):
            pass
        other.kill()
    # The lock is the kernel's: kill -9 leaves nothing to clean up.
    with data.DataFolder(tmp_path).locked():
        assert (tmp_path / "lock").read_text().strip().isdigit()


def test_everything_secret_is_readable_by_its_owner_only(tmp_path: pathlib.Path) -> None:
    folder = data.DataFolder(tmp_path / "new" / "data")
    with folder.locked():
        folder.write_creds(folder.realm())
        folder.ensure_secret_keys()
        folder.redis_password()

        files = [path for path in folder.path.rglob("*") if path.is_file()]

    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert len([path for path in files if path.suffix == ".creds"]) == len(data.SERVICES)


def test_what_was_chosen_once_is_found_again(tmp_path: pathlib.Path) -> None:
    def choices() -> list[str]:
        folder = data.DataFolder(tmp_path)
        with folder.locked():
            folder.keep_nats_port(folder.nats_port() or 4321)
            sealed = folder.secret_box().seal("a secret")
            assert data.DataFolder(tmp_path).secret_box().open(sealed) == "a secret"
            return [
                folder.realm().fleet.public,
                folder.redis_password(),
                str(folder.nats_port()),
                str(folder.gateway_port(0)),
                str(folder.redis_socket()),
            ]

    assert choices() == choices()


def test_the_socket_of_redis_has_a_path_the_kernel_takes_however_deep_the_folder_is(
    tmp_path: pathlib.Path,
) -> None:
    deep = data.DataFolder(tmp_path / ("d" * 90) / "data")
    with deep.locked():
        path = deep.redis_socket()

    assert len(str(path)) < data.SOCKET_PATH_BYTES_MAX
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.parent.rmdir()
