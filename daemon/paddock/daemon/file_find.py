"""`file.find`: everything below a folder whose name fits. Links are not followed. Blocks, in slices."""

import fnmatch
import os
import re
from collections.abc import Callable

from paddock.contracts import files
from paddock.daemon import file_info, file_place, file_slices, paths

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_YIELD_EVERY = 64


def find(params: files.FindParams, home: str) -> "file_slices.Slices[files.FindResult]":
    """Find; sorted by path. Folders that cannot be read are counted and passed over.

    Raises:
        errors.Fault: There is no such folder, or it cannot be read.
    """
    path = paths.resolve(params.path, home)
    with file_place.refusals(f"search {params.path}"):
        top = os.open(path, _FOLDER & ~os.O_NOFOLLOW)
    try:
        search = _Search(params, path.rstrip("/"), top)
        yield from search.run()
    finally:
        os.close(top)
    entries = sorted(search.found, key=lambda entry: entry.path)
    return files.FindResult(entries=entries, is_complete=search.is_complete, unreadable=search.unreadable)


class _Search:
    def __init__(self, params: files.FindParams, path: str, top: int) -> None:
        self._params = params
        self._path = path
        self._top = top
        self._fits: Callable[[str], object] = re.compile(fnmatch.translate(params.pattern)).match
        self._describer = file_info.Describer()
        self._ahead: list[tuple[str, int]] = [(".", 1)]
        self._used = 0
        self.found: list[files.FileInfo] = []
        self.is_complete = True
        self.unreadable = 0

    def run(self) -> "file_slices.Slices[None]":
        while self._ahead and self.is_complete:
            relative, depth = self._ahead.pop()
            try:
                folder = os.open(relative, _FOLDER, dir_fd=self._top)
            except OSError:
                self.unreadable += 1
                continue
            try:
                yield from self._scan(folder, relative, depth)
            except OSError:
                self.unreadable += 1
            finally:
                os.close(folder)

    def _scan(self, folder: int, relative: str, depth: int) -> "file_slices.Slices[None]":
        prefix = "" if relative == "." else relative + "/"
        with os.scandir(folder) as scanned:
            for at, entry in enumerate(scanned):
                self._take(folder, entry, prefix)
                if not self.is_complete:
                    return
                if depth < self._params.depth_max and entry.is_dir(follow_symlinks=False):
                    self._ahead.append((prefix + entry.name, depth + 1))
                if at % _YIELD_EVERY == 0:
                    yield

    def _take(self, folder: int, entry: "os.DirEntry[str]", prefix: str) -> None:
        if not self._fits(file_info.shown(entry.name)):
            return
        path = f"{self._path}/{prefix}{entry.name}"
        found = self._describer.entry(path, entry.name, folder)
        if found is None or self._params.kind not in {None, found.kind}:
            return
        self._used += len(path)
        if len(self.found) >= self._params.limit or self._used > file_info.PAGE_BYTES_MAX:
            self.is_complete = False
            return
        self.found.append(found)
