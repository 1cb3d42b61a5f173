"""How modules are laid out: sizes, docstrings, namespace folders, and the few words that have one home."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

from tests.repo import tree

LINES_MAX = 600
SOURCES = [path for member in tree.members() for path in member.files()]
WALL_CLOCKS = {
    ("time", "time"),
    ("time", "time_ns"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("date", "today"),
}
CATCHES_EVERYTHING = {
    "store/paddock/store/runner.py": "around one stage's work: a bug there fails an attempt, with its traceback",
}
"""Beside the bus, which does it around a request and around an event."""
CLOCK_HOME = "bus/paddock/bus/clock.py"


def calls(path: pathlib.Path) -> Iterator[tuple[int, str, str]]:
    """(line, owner, attribute) of each `owner.attribute(...)`; of `a.b.c()` the owner is `b`."""
    for node in ast.walk(tree.parsed(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            yield node.lineno, name, node.func.attr


def test_no_namespace_folder_has_an_init_file() -> None:
    closed = [tree.shown(member.folder / "paddock/__init__.py") for member in tree.members()]

    assert [path for path in closed if (tree.ROOT / path).exists()] == []


@pytest.mark.parametrize("member", tree.members(), ids=lambda member: member.name)
def test_a_member_keeps_all_its_modules_in_its_own_package(member: tree.Member) -> None:
    assert (member.package / "__init__.py").is_file()
    assert [tree.shown(path) for path in member.files() if not path.is_relative_to(member.package)] == []


def test_init_files_hold_a_docstring_and_nothing_else() -> None:
    full = [path for path in SOURCES if path.name == "__init__.py" and len(tree.parsed(path).body) > 1]

    assert [tree.shown(path) for path in full] == []


def test_every_module_says_what_it_is() -> None:
    assert [tree.shown(path) for path in SOURCES if not ast.get_docstring(tree.parsed(path))] == []


def test_no_module_outgrows_its_noun() -> None:
    everything = [*SOURCES, *(tree.ROOT / "tests").rglob("*.py")]

    assert {tree.shown(p): n for p in everything if (n := len(p.read_text().splitlines())) > LINES_MAX} == {}


def test_only_the_clock_module_reads_the_wall_clock() -> None:
    reads = [
        f"{tree.shown(path)}:{line}"
        for path in SOURCES
        if tree.shown(path) != CLOCK_HOME
        for line, owner, attribute in calls(path)
        if (owner, attribute) in WALL_CLOCKS
    ]

    assert reads == []


def passes_it_on(handler: ast.ExceptHandler) -> bool:
    """Whether it only cleans up: it ends by raising what it caught."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_only_the_bus_and_the_stage_runner_catch_everything() -> None:
    broad = [
        f"{tree.shown(path)}:{node.lineno}"
        for path in SOURCES
        if not tree.shown(path).startswith("bus/") and tree.shown(path) not in CATCHES_EVERYTHING
        for node in ast.walk(tree.parsed(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or getattr(node.type, "id", "") in {"Exception", "BaseException"})
        and not passes_it_on(node)
    ]

    assert broad == []


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    """A known gap is data in requirements.py, where it has a reason and is counted."""
    words = {"skip", "skipif", "xfail", "importorskip"}
    used = [
        f"{tree.shown(path)}:{node.lineno}"
        for path in (tree.ROOT / "tests").rglob("*.py")
        for node in ast.walk(tree.parsed(path))
        if isinstance(node, ast.Attribute) and node.attr in words and ast.unparse(node).startswith("pytest")
    ]

    assert used == []


def test_every_test_asserts_something() -> None:
    empty = [
        f"{tree.shown(path)}:{node.lineno} {node.name}"
        for path in tree.test_files()
        for node in ast.walk(tree.parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        if not any(asserts(part) for part in ast.walk(node))
    ]

    assert empty == []


def asserts(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return True
    # A helper named for a claim, and pytest.raises, assert for the test that calls them.
    name = ast.unparse(node.func).split(".")[-1] if isinstance(node, ast.Call) else ""
    return name in {"raises", "warns"} or name.startswith(("assert_", "expect_"))
