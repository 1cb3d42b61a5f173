"""What is in a folder here or in a machine, flat: folders before what they hold, then files and links.

Links are not followed. What cannot be copied is listed with the reason.
"""

import collections
import dataclasses
import os
import pathlib
import stat
from typing import Final

from paddock.client import files
from paddock.client.commands import places
from paddock.contracts.api import files as api

NO_TEXT: Final = "its name is no UTF-8"
NO_FILE: Final = "it is neither a file nor a folder nor a link"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """`path` is from the top of the tree, with slashes; `target` is a link's text."""

    path: str
    mode: int
    size_bytes: int = 0
    target: str = ""


@dataclasses.dataclass(slots=True)
class Tree:
    """The folder itself is not among its folders; its mode is `mode`."""

    mode: int
    folders: list[Entry] = dataclasses.field(default_factory=list)
    files: list[Entry] = dataclasses.field(default_factory=list)
    links: list[Entry] = dataclasses.field(default_factory=list)
    left_out: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def of_folder(top: pathlib.Path) -> Tree:
    """All that is below a folder of this computer. Blocks."""
    tree = Tree(mode=stat.S_IMODE(top.stat().st_mode))
    waiting = collections.deque([""])
    while waiting:
        inside = waiting.popleft()
        try:
            with os.scandir(top / inside) as found:
                entries = sorted(found, key=lambda one: one.name)
        except OSError as error:
            tree.left_out.append((inside, error.strerror or "it cannot be read"))
            continue
        for one in entries:
            path = f"{inside}/{one.name}" if inside else one.name
            if _add_local(tree, one, path):
                waiting.append(path)
    return tree


def _add_local(tree: Tree, one: "os.DirEntry[str]", path: str) -> bool:
    """Add an entry; whether it is a folder to look into."""
    try:
        known = one.stat(follow_symlinks=False)
        target = os.readlink(one.path) if one.is_symlink() else ""  # noqa: PTH115 - of an entry, as text
    except OSError as error:
        tree.left_out.append((path, error.strerror or "it cannot be read"))
        return False
    entry = Entry(path, stat.S_IMODE(known.st_mode) & 0o777, known.st_size, target)
    if not _is_text(path) or not _is_text(target):
        tree.left_out.append((path, NO_TEXT))
    elif one.is_symlink():
        tree.links.append(entry)
    elif stat.S_ISDIR(known.st_mode):
        tree.folders.append(entry)
        return True
    elif stat.S_ISREG(known.st_mode):
        tree.files.append(entry)
    else:
        tree.left_out.append((path, NO_FILE))
    return False


async def of_machine(its: files.Files, top: api.FileInfo, path: str) -> Tree:
    """All that is below a folder of a machine, which is `path` and looks like `top`."""
    tree = Tree(mode=top.mode & 0o777)
    waiting = collections.deque([""])
    while waiting:
        inside = waiting.popleft()
        async for one in its.each(places.joined(path, inside) if inside else path):
            shown = f"{inside}/{one.name}" if inside else one.name
            if one.name_base64:
                tree.left_out.append((shown, NO_TEXT))
            # Our file system would take these for a path of their own.
            elif "/" in one.name or "\0" in one.name or one.name in {"", ".", ".."}:
                tree.left_out.append((shown, "its name is none"))
            elif _add_remote(tree, one, shown):
                waiting.append(shown)
    return tree


def _add_remote(tree: Tree, one: api.FileInfo, path: str) -> bool:
    entry = Entry(path, one.mode & 0o777, one.size, one.target)
    match one.kind:
        case "directory":
            tree.folders.append(entry)
            return True
        case "file":
            tree.files.append(entry)
        case "symlink":
            tree.links.append(entry)
        case "other":
            tree.left_out.append((path, NO_FILE))
    return False


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
