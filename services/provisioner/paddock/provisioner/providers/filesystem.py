"""What a sandbox sees of the host's files: as little as runs git and Python, all of it read-only.

/usr is the host's. /etc is not: a handful of generated files and what is public by nature (certificates, links between
programs), never the whole, where hosts keep their secrets. /proc is the sandbox's own, with what it tells about and
does to the host covered.
"""

import os
import pathlib
import shutil
from typing import Final

from paddock.contracts import ids
from paddock.provisioner.providers import runtime

HOME = pathlib.Path("/home/machine")
UID = 1000
_LINKED_TO_USR = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_PUBLIC_ETC = (
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
)
_GENERATED: Final = {
    "passwd": f"root:x:0:0:root:/:/bin/sh\nmachine:x:{UID}:{UID}::{HOME}:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "group": f"root:x:0:\nmachine:x:{UID}:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nnetworks: files\nservices: files\nprotocols: files\n",
}
_ACTS_ON_THE_HOST = frozenset({"acpi", "bus", "fs", "irq", "scsi", "sys"})
_OTHERS_READ = 0o004
_ANYONE_WRITES = 0o222


def write_etc(folder: pathlib.Path, sandbox: ids.SandboxId) -> None:
    """Generate the sandbox's own /etc into `folder`."""
    folder.mkdir(mode=0o700, exist_ok=True)
    hosts = _content("/etc/hosts") or "127.0.0.1 localhost\n::1 localhost\n"
    made = {
        **_GENERATED,
        "hostname": f"{sandbox}\n",
        "hosts": f"{hosts.rstrip()}\n127.0.0.1 {sandbox}\n",
        "resolv.conf": _content("/etc/resolv.conf"),
    }
    for name, content in made.items():
        (folder / name).write_text(content)


def arguments(
    etc: pathlib.Path, home: pathlib.Path, daemon: runtime.Runtime, readonly: tuple[pathlib.Path, ...]
) -> list[str]:
    """The part of bwrap's arguments that lays out the files, in order: later mounts lie on earlier ones.

    Args:
        etc: The folder `write_etc` filled.
        home: The machine's HOME on the host.
        daemon: What is run.
        readonly: More of the host to show, by the operator's wish.
    """
    return [
        *("--proc", "/proc", *proc_covers()),
        *("--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),  # noqa: S108
        *("--perms", "1777", "--tmpfs", "/tmp"),  # noqa: S108 - the sandbox's own
        *("--dir", "/run", "--dir", "/var", "--symlink", "../tmp", "/var/tmp"),  # noqa: S108
        *_system(),
        *_etc(etc),
        *_bound("--bind", home, HOME),
        *(argument for root in daemon.roots for argument in _bound("--ro-bind", root)),
        *(argument for link in daemon.links for argument in ("--symlink", str(link.readlink()), str(link))),
        *(argument for path in readonly for argument in _bound("--ro-bind", path)),
        *("--remount-ro", "/"),
    ]


def proc_covers() -> list[str]:
    """Cover in /proc what bwrap leaves open when the host's user is root.

    The sandbox's user is then the kernel's uid 0 without capabilities, and that owner may write /proc/sys (core_pattern runs
    a program of his choice on the host) and /proc/sysrq-trigger. bwrap asks access(2) about the folder and sees no harm.
    """
    covers: list[str] = []
    for entry in sorted(os.scandir("/proc"), key=lambda entry: entry.name):
        if entry.name.isdigit() or entry.is_symlink():
            continue
        mode = entry.stat(follow_symlinks=False).st_mode
        if entry.name in _ACTS_ON_THE_HOST:
            covers += _bound("--ro-bind", pathlib.Path(entry.path))
        elif entry.is_file() and not mode & _OTHERS_READ:
            covers += _bound("--ro-bind", pathlib.Path(os.devnull), pathlib.Path(entry.path))
        elif entry.is_file() and mode & _ANYONE_WRITES:
            covers += _bound("--ro-bind", pathlib.Path(entry.path))
    return covers


def _system() -> list[str]:
    found = _bound("--ro-bind", pathlib.Path("/usr"))
    for name in _LINKED_TO_USR:
        path = pathlib.Path(name)
        if path.is_symlink():
            found += ["--symlink", str(path.readlink()), name]
        elif path.exists():
            found += _bound("--ro-bind", path)
    return found + _git()


def _git() -> list[str]:
    """Git's own installation where it is not the system's; it finds its parts relative to itself."""
    found = shutil.which("git", path=runtime.SYSTEM_PATH)
    if found is None:
        return []
    prefix = pathlib.Path(found).resolve().parent.parent
    is_system = prefix.is_relative_to("/usr") or prefix == prefix.parent
    return [] if is_system else _bound("--ro-bind", prefix)


def _etc(folder: pathlib.Path) -> list[str]:
    found: list[str] = []
    for name in sorted(path.name for path in folder.iterdir()):
        found += _bound("--ro-bind", folder / name, pathlib.Path("/etc") / name)
    for public in _PUBLIC_ETC:
        if pathlib.Path(public).exists():
            found += _bound("--ro-bind", pathlib.Path(public))
    return found


def _bound(how: str, source: pathlib.Path, target: pathlib.Path | None = None) -> list[str]:
    return [how, str(source), str(target or source)]


def _content(path: str) -> str:
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError:
        return ""
