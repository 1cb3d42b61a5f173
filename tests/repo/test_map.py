"""The map shows every module, and only modules that exist."""

import re

from tests.repo import map as house_map
from tests.repo import tree

MODULE_LINE = re.compile(r"^- `([\w/]+\.py)` (.+)$")


def shown_on_the_map() -> dict[str, str]:
    found: dict[str, str] = {}
    prefix = ""
    for line in house_map.MAP.read_text().splitlines():
        if line.endswith("/`"):
            prefix = line.split("`")[-2]
        elif match := MODULE_LINE.match(line):
            found[prefix + match[1]] = match[2]
    return found


def test_every_module_has_its_line_on_the_map() -> None:
    missing = sorted(set(house_map.lines()) - set(shown_on_the_map()))

    assert missing == [], "run .venv/bin/python -m tests.repo.map"


def test_every_line_of_the_map_is_a_module_that_exists() -> None:
    assert [path for path in shown_on_the_map() if not (tree.ROOT / path).is_file()] == []


def test_the_map_says_of_a_module_what_the_module_says_of_itself() -> None:
    assert shown_on_the_map() == house_map.lines(), "run .venv/bin/python -m tests.repo.map"


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{tree.shown(path)}: {target}"
        for path in tree.text_files()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
        if "://" not in target and not (path.parent / target).exists()
    ]

    assert broken == []


def test_a_document_that_sources_point_at_exists() -> None:
    missing = [
        f"{tree.shown(path)}: {target}"
        for path in tree.text_files()
        for target in re.findall(r"\bdocs/[\w/-]+(?:\.md)?", path.read_text())
        if not (tree.ROOT / target).exists()
    ]
    numbers = {path.name[:4] for path in (tree.ROOT / "docs/decisions").glob("*.md")}
    unknown = [
        f"{tree.shown(path)}: decision {number}"
        for path in tree.text_files()
        for number in re.findall(r"\bdecision (\d{4})\b", path.read_text(), re.IGNORECASE)
        if number not in numbers
    ]

    assert (missing, unknown) == ([], [])
