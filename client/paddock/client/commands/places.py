"""Where a file is, as people type it: `MACHINE:PATH`, a path here, or `-`."""

import dataclasses
import posixpath
import re
from typing import Final

from paddock.contracts import errors

_REMOTE: Final = re.compile(r"([^/:]+):(.*)", re.DOTALL)
STREAM: Final = "-"


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """`machine` is empty for a path here.

    `name` is what a copy of it is called in a folder; empty when that folder is to become like it, as for `app/.`.
    `is_named_as_folder`: it was typed with a slash at its end.
    """

    path: str
    machine: str
    name: str
    is_named_as_folder: bool = False

    @property
    def is_stream(self) -> bool:
        return not self.machine and self.path == STREAM

    def __str__(self) -> str:
        return f"{self.machine}:{self.path}" if self.machine else self.path


def read(text: str) -> Place:
    """`m1:app/x` is in a machine; with a slash before the first colon, as in `./a:b`, it is here.

    Raises:
        errors.InvalidParams: It is empty.
    """
    if not text:
        raise errors.InvalidParams("cannot copy: a path is empty")
    match = _REMOTE.fullmatch(text)
    machine, path = (match[1], match[2]) if match else ("", text)
    last = posixpath.basename(path.rstrip("/"))
    return Place(
        in_machine(path) if machine else path,
        machine,
        "" if last in {".", "..", "~"} else last,
        is_named_as_folder=path.endswith("/"),
    )


def in_machine(path: str) -> str:
    """A path as the machine takes it: absolute or under ~, where relative ones begin; without `.` and needless slashes.

    Not without `..`, which is the machine's to refuse: with links it is not what it looks like.
    """
    if not path.startswith(("/", "~/")) and path != "~":
        path = f"~/{path}"
    root, *parts = path.split("/")
    return "/".join((root, *(part for part in parts if part not in {"", "."}))) or "/"


def joined(folder: str, name: str) -> str:
    """`name` in a folder of a machine."""
    return f"{folder.rstrip('/')}/{name}"
