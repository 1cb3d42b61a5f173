r"""The variables in a `.env` file, read as a shell would read it and as `setup_pusher` writes it.

`KEY=value`, `KEY='literally'`, `KEY="…"`; values in quotes may hold newlines. Inside double quotes a backslash protects
backslash, double quote, dollar and backtick, and is itself anywhere else. Nothing is ever expanded. A line that is no
assignment is passed over and its number reported: people edit this file by hand, and commands must still run.
"""

import dataclasses
import pathlib
import re

_ASSIGNMENT = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*", re.ASCII)
_DOUBLE = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
_SINGLE = re.compile(r"'([^']*)'")
_LINE = re.compile(r"[^\n]*")
_NOTHING_MORE = re.compile(r"[ \t\r]*(?:#[^\n]*)?(?=\n|\Z)")
_COMMENT = re.compile(r"(?:^|[ \t])#.*")
_PROTECTED = re.compile(r'\\([\\"$`])')


@dataclasses.dataclass(frozen=True, slots=True)
class Parsed:
    """What a file says; the last of several assignments to one name counts."""

    variables: dict[str, str]
    bad_lines: tuple[int, ...]


def parse(text: str) -> Parsed:
    """Read the text of a file. Never fails: see `bad_lines`, counted from 1."""
    variables: dict[str, str] = {}
    bad_lines: list[int] = []
    at = 1 if text.startswith("\ufeff") else 0
    while at < len(text):
        end, name, value = _statement(text, at)
        if name:
            variables[name] = value
        elif not _NOTHING_MORE.match(text, at):
            bad_lines.append(text.count("\n", 0, at) + 1)
        at = end + 1
    return Parsed(variables, tuple(bad_lines))


def read(path: pathlib.Path) -> Parsed:
    """Read a file; bytes that are no UTF-8 reach the process as they are.

    Raises:
        OSError: It cannot be read.
    """
    # newline="": a carriage return inside quotes is part of the value.
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return parse(file.read())


def _statement(text: str, at: int) -> tuple[int, str, str]:
    """Where the statement at `at` ends, its name and its value; no name when it is no assignment."""
    line_end = _end_of_line(text, at)
    assignment = _ASSIGNMENT.match(text, at, line_end)
    if assignment is None:
        return line_end, "", ""
    begin = assignment.end()
    quote = text[begin : begin + 1]
    if quote not in {'"', "'"}:
        value = _COMMENT.sub("", text[begin:line_end]).strip()
        return line_end, "" if "\0" in value else assignment[1], value
    quoted = (_DOUBLE if quote == '"' else _SINGLE).match(text, begin)
    rest = _NOTHING_MORE.match(text, quoted.end()) if quoted else None
    if quoted is None or rest is None or "\0" in quoted[1]:
        return line_end, "", ""
    return rest.end(), assignment[1], _PROTECTED.sub(r"\1", quoted[1]) if quote == '"' else quoted[1]


def _end_of_line(text: str, at: int) -> int:
    line = _LINE.match(text, at)
    return line.end() if line else len(text)
