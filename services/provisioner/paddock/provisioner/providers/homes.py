"""What a machine's HOME is given before its sandbox starts.

A HOME was in the hands of the machine's user and may hold anything: links that point out of it, folders where files should
be, pipes that never end. Every step goes by folder descriptor and follows no link, so nothing outside is read or written.
"""

import contextlib
import os
import pathlib
import secrets
import stat
from collections.abc import Iterator

import msgspec

FOLDER = ".paddock"
BOOT_FILE = "boot.json"
CREDENTIALS_FILE = "bus.creds"


class Boot(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the daemon needs to know to say ready. No secret; `credentials_file` names one."""

    machine_id: str
    generation: int
    sandbox_id: str
    bus_url: str
    credentials_file: str
    node_name: str
    inbox_prefix: str


def inject(home: pathlib.Path, boot: Boot, credentials: str) -> None:
    """Write `.paddock/boot.json` and `.paddock/bus.creds`, both 0600.

    Raises:
        OSError: The disk is full, or HOME is not ours.
    """
    with _private_folder(home) as folder:
        _write(folder, CREDENTIALS_FILE, credentials.encode())
        _write(folder, BOOT_FILE, msgspec.json.encode(boot))


@contextlib.contextmanager
def _private_folder(home: pathlib.Path) -> Iterator[int]:
    with _opened(home, os.O_DIRECTORY) as parent:
        _make_folder(parent)
        with _opened(FOLDER, os.O_DIRECTORY, dir_fd=parent) as folder:
            os.fchmod(folder, 0o700)
            yield folder


def _make_folder(parent: int) -> None:
    try:
        os.mkdir(FOLDER, 0o700, dir_fd=parent)
    except FileExistsError:
        mode = os.stat(FOLDER, dir_fd=parent, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(mode):
            _set_aside(parent, FOLDER)
            os.mkdir(FOLDER, 0o700, dir_fd=parent)


def _write(folder: int, name: str, content: bytes) -> None:
    """Replace one file whole; a link of that name is replaced, not followed."""
    partial = f".{name}.{secrets.token_hex(6)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(partial, flags, 0o600, dir_fd=folder), "wb") as stream:
        stream.write(content)
    try:
        os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    except IsADirectoryError:
        _set_aside(folder, name)
        os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)


def _set_aside(folder: int, name: str) -> None:
    """Nothing of the user's is removed: it gets another name."""
    os.rename(name, f"{name}.aside-{secrets.token_hex(4)}", src_dir_fd=folder, dst_dir_fd=folder)


@contextlib.contextmanager
def _opened(path: pathlib.Path | str, flags: int, *, dir_fd: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
