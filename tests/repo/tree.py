"""What is in the repository: members, modules, text files. For the checks in this folder."""

import ast
import dataclasses
import functools
import os
import pathlib
import tomllib
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
GENERATED = frozenset({"build", "dist", "__pycache__", "node_modules"})
"""Folders nobody writes by hand. Those that begin with a dot are passed over too, but for `.ci`."""
TEXT_SUFFIXES = frozenset(
    {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".sh", ".cfg", ".ini", ".mako", ""}
)


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One package of the workspace."""

    folder: pathlib.Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest["project"]["name"])

    @property
    def module(self) -> str:
        return str(self.manifest["tool"]["uv"]["build-backend"]["module-name"])

    @property
    def description(self) -> str:
        return str(self.manifest["project"]["description"])

    @property
    def package(self) -> pathlib.Path:
        return self.folder.joinpath(*self.module.split("."))

    def files(self) -> list[pathlib.Path]:
        return sorted(path for path in self.folder.rglob("*.py") if not GENERATED & set(path.parts))


@functools.cache
def workspace() -> dict[str, Any]:
    """The root's pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@functools.cache
def members() -> tuple[Member, ...]:
    """In the order in which the workspace names them."""
    patterns = workspace()["tool"]["uv"]["workspace"]["members"]
    manifests = [path for pattern in patterns for path in sorted(ROOT.glob(f"{pattern}/pyproject.toml"))]
    return tuple(Member(path.parent, tomllib.loads(path.read_text())) for path in manifests)


@functools.cache
def parsed(path: pathlib.Path) -> ast.Module:
    """The syntax tree of one file."""
    return ast.parse(path.read_text(), filename=str(path))


def shown(path: pathlib.Path) -> str:
    """`path` as people write it: from the root, with slashes."""
    return path.relative_to(ROOT).as_posix()


def text_files() -> Iterator[pathlib.Path]:
    """Every file somebody wrote."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in GENERATED and (name == ".ci" or name[0] != ".")]
        for name in names:
            path = pathlib.Path(folder, name)
            if path.suffix in TEXT_SUFFIXES and not name.endswith(".lock"):
                yield path


def test_files() -> list[pathlib.Path]:
    return sorted((ROOT / "tests").rglob("test_*.py"))
