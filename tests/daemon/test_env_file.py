"""The `.env` parser agrees with the control plane's writer, with a shell, and with people."""

import pathlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.daemon import env_file
from paddock.setup_pusher import dotenv

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60) | st.text(
    " \t\r\n#$\"'\\`=!a{}()~*é", max_size=20
)


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_what_the_control_plane_writes_is_read_back_unchanged(variables: dict[str, str]) -> None:
    assert env_file.parse(dotenv.render(variables)) == env_file.Parsed(variables, ())


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("K=plain", "plain"),
        ("export K=exported", "exported"),
        ("  K  =  spaced out  ", "spaced out"),
        ("K=", ""),
        ('K=""', ""),
        ("K=a # said aside", "a"),
        ("K=a#b", "a#b"),
        ("K=#nothing", ""),
        ('K="a # b" # said aside', "a # b"),
        ("K='$HOME \\n \"x\"'", '$HOME \\n "x"'),
        ('K="two\nlines"', "two\nlines"),
        ("K='two\nlines'", "two\nlines"),
        ('K="a\\"b\\\\c\\$d\\`e"', 'a"b\\c$d`e'),
        ('K="\\n is two characters, as in a shell"', "\\n is two characters, as in a shell"),
        ("K=$HOME/bin", "$HOME/bin"),
        ("K=first\nK=second", "second"),
        ("K=windows\r\n", "windows"),
        ('K="windows"\r\n', "windows"),
        ("\ufeffK=marked", "marked"),
        ('K="no line end at the end of the file"', "no line end at the end of the file"),
    ],
)
def test_a_line_means_what_people_mean_by_it(line: str, value: str) -> None:
    assert env_file.parse(line) == env_file.Parsed({"K": value}, ())


@pytest.mark.parametrize(
    "line", ["no assignment", "1K=x", "K-K=x", 'K="never closed', "K='a' b", 'K="a"b', "K=\0", "=x", "K"]
)
def test_a_line_that_is_none_is_passed_over_and_counted(line: str) -> None:
    parsed = env_file.parse(f"A=1\n{line}\nB=2\n")

    assert parsed == env_file.Parsed({"A": "1", "B": "2"}, (2,))


def test_comments_and_empty_lines_are_no_bad_lines() -> None:
    assert env_file.parse("# one\n\n   \n\t# two\r\nA=1\n") == env_file.Parsed({"A": "1"}, ())


def test_a_shell_reads_the_same(tmp_path: pathlib.Path) -> None:
    tricky = {
        "A": "a'b\"c",
        "B": "$HOME `id` \\ !x",
        "C": "line\nand\ttab",
        "D": "é # ü",
        "E": "",
        "F": "\\n",
    }
    file = tmp_path / ".env"
    file.write_text(dotenv.render(tricky), newline="")
    script = f'set -a; . {file}; printf "%s\\0" "$A" "$B" "$C" "$D" "$E" "$F"'
    seen = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout

    assert seen.decode().split("\0")[:-1] == list(tricky.values())
    assert env_file.read(file).variables == tricky


def test_bytes_that_are_no_utf8_survive(tmp_path: pathlib.Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b'K="\xff\xfe"\n')

    assert env_file.read(file).variables["K"].encode("utf-8", "surrogateescape") == b"\xff\xfe"


@given(st.text(max_size=200))
def test_no_text_makes_it_fail(text: str) -> None:
    parsed = env_file.parse(text)

    assert all(name.isidentifier() and "\0" not in value for name, value in parsed.variables.items())
