"""The manifest of promises names tests that exist."""

import ast

from tests.repo import requirements, tree


def existing_tests() -> set[str]:
    return {
        f"{tree.shown(path)}::{node.name}"
        for path in tree.test_files()
        for node in ast.walk(tree.parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_test_a_promise_names_exists() -> None:
    named = {test for tests in requirements.REQUIREMENTS.values() for test in tests}

    assert sorted(named - existing_tests()) == []


def test_every_promise_has_a_test_or_a_reason_why_not() -> None:
    untested = [promise for promise, tests in requirements.REQUIREMENTS.items() if not tests]

    assert untested == []
    assert [promise for promise, reason in requirements.GAPS.items() if not reason.strip()] == []


def test_no_promise_is_both_kept_and_missing() -> None:
    assert set(requirements.REQUIREMENTS) & set(requirements.GAPS) == set()


def test_ci_runs_what_people_run() -> None:
    assert "exec make test\n" in (tree.ROOT / ".ci/run").read_text()


def test_the_make_targets_of_the_readme_exist() -> None:
    readme = (tree.ROOT / "README.md").read_text()
    targets = {
        line.split(":")[0] for line in (tree.ROOT / "Makefile").read_text().splitlines() if ": " in line
    }

    named = {word.strip("`.,") for line in readme.split("make ")[1:] for word in line.split()[:1]}

    assert named - targets == set()
