"""Every member declares what it imports, and is known to the tools that need a list."""

import ast
import importlib.metadata
import re
import sys

import pytest

from tests.repo import tree

MEMBERS = pytest.mark.parametrize("member", tree.members(), ids=lambda member: member.name)
BY_NAME = {member.name: member for member in tree.members()}
DISTRIBUTIONS = importlib.metadata.packages_distributions()
EXTRA_FOR = {"paddock.contracts.api": ("paddock-contracts", "api")}
"""Modules that work only with an extra of their distribution."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(member: tree.Member) -> dict[str, frozenset[str]]:
    """Distribution to the extras asked for; a member's own optional dependencies count."""
    project = member.manifest["project"]
    optional = [line for lines in project.get("optional-dependencies", {}).values() for line in lines]
    found: dict[str, frozenset[str]] = {}
    for line in [*project["dependencies"], *optional]:
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[([^\]]*)\])?", line)
        assert match is not None, line
        found[canonical(match[1])] = frozenset(filter(None, (match[2] or "").replace(" ", "").split(",")))
    return found


def imported(member: tree.Member) -> list[tuple[str, str]]:
    """(where, dotted name) of every import; `from paddock.bus import clock` is `paddock.bus.clock`."""
    found: list[tuple[str, str]] = []
    for path in member.files():
        for node in ast.walk(tree.parsed(path)):
            where = f"{tree.shown(path)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                found += [(where, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found += [(where, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def is_declared(name: str, member: tree.Member, wanted: dict[str, frozenset[str]]) -> bool:
    head = name.split(".", maxsplit=1)[0]
    if head in sys.stdlib_module_names or name.startswith(f"{member.module}."):
        return True
    if head != "paddock":
        return any(canonical(distribution) in wanted for distribution in DISTRIBUTIONS.get(head, []))
    owner = next((one for one in tree.members() if f"{name}.".startswith(f"{one.module}.")), None)
    if owner is None or owner.name not in wanted:
        return False
    distribution, extra = next(
        (want for prefix, want in EXTRA_FOR.items() if name.startswith(prefix)), ("", "")
    )
    return not extra or extra in wanted[distribution]


@MEMBERS
def test_a_member_declares_every_distribution_it_imports(member: tree.Member) -> None:
    wanted = declared(member)

    missing = [
        f"{where} imports {name}" for where, name in imported(member) if not is_declared(name, member, wanted)
    ]

    assert missing == []


@MEMBERS
def test_a_member_is_known_to_the_type_checker_and_the_linter(member: tree.Member) -> None:
    folder = tree.shown(member.folder)
    settings = tree.workspace()["tool"]

    assert folder in settings["mypy"]["mypy_path"]
    assert {folder, f"{folder.split('/')[0]}/*"} & set(settings["ruff"]["src"])


def test_every_member_has_its_place_in_the_layers() -> None:
    layers = tree.workspace()["tool"]["importlinter"]["contracts"][0]["layers"]

    placed = {name.strip() for layer in layers for name in layer.split("|")}

    assert placed == {member.module.removeprefix("paddock.") for member in tree.members()}


def test_members_of_the_workspace_are_taken_from_the_workspace_and_not_from_a_registry() -> None:
    strays = [
        f"{member.name} asks for {name}"
        for member in tree.members()
        for name in declared(member)
        if name in BY_NAME
        and not member.manifest["tool"]["uv"].get("sources", {}).get(name, {}).get("workspace")
    ]

    assert strays == []
