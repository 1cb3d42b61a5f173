"""What no file may hold: paths of somebody's machine, registry hosts, numbers of a tracker."""

import re

from tests.repo import tree

FORBIDDEN = {
    "a path of one machine": re.compile(
        r"(?<![\w.$}~-])/(?:root/(?!\.ssh)|work/|Users/)|(?<![\w.$}~-])/home/(?!user\b|me\b|agent\b|paddock\b|machine\b)\w"
    ),
    "a registry's host": re.compile(
        r"\b(?:pypi\.org|pythonhosted\.org|registry\.npmjs\.org|proxy\.golang\.org)\b"
    ),
    "a number of a tracker": re.compile(
        r"(?<![\w&/#\"'=(\[])#\d{1,6}\b(?!\w)|\bissues? \d+\b", re.IGNORECASE
    ),
    "work left undone": re.compile(r"\b(?:FIXME|XXX|HACK)\b"),
}


def test_no_file_holds_what_belongs_elsewhere() -> None:
    found = [
        f"{tree.shown(path)}:{number}: {what}: {line.strip()[:80]}"
        for path in tree.text_files()
        if path.name != "test_words.py"
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for what, pattern in FORBIDDEN.items()
        if pattern.search(line)
    ]

    assert found == []


def test_the_patterns_find_what_they_are_for() -> None:
    samples = {
        "a path of one machine": "see /root/x and /home/alice/x",
        "a registry's host": "https://pypi.org/simple",
        "a number of a tracker": "fixed in #123",
        "work left undone": "# FIXME later",
    }

    assert {what for what, pattern in FORBIDDEN.items() if pattern.search(samples[what])} == set(FORBIDDEN)
