import os
import pathlib
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paddock.contracts import errors
from paddock.daemon import env_file
from paddock.setup_pusher import dotenv

NASTY = {
    "PX_PLAIN": "a-b_c.d/e:f@g%h+i,j=k",
    "PX_EMPTY": "",
    "PX_LINES": "one\ntwo\r\nthree\rfour\n",
    "PX_HASH": "a #b # c",
    "PX_DOLLAR": "$HOME ${HOME} $(id) `id` $$ $",
    "PX_QUOTES": '"double" \'single\' "',
    "PX_BACKSLASH": '\\ \\n \\" \\\\ \\',
    "PX_UNICODE": "grüße 日本語 🐎 \u2028 \u0085 \ufeff",
    "PX_SPACES": "  leading\tand trailing  ",
    "PX_TILDE": "~ ~/x a:~/b",
    "PX_BANG": "!! !x ^a^b^",
    "PX_CONTROL": "\x01\x1b[0m\x7f",
    "PX_PEM": "-----BEGIN KEY-----\nabc=\n-----END KEY-----",
}
names = st.from_regex(r"PX_[A-Za-z0-9_]{1,12}", fullmatch=True)
values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


def sourced(path: pathlib.Path) -> dict[str, str]:
    """What a shell that sources the file puts into the environment."""
    command = ["bash", "-c", 'set -a; . "$1"; exec env -0', "bash", str(path)]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, check=True)
    pairs = (item.partition("=") for item in done.stdout.decode().split("\0") if item)
    return {name: value for name, _, value in pairs if name.startswith("PX_")}


@settings(deadline=None)
@given(st.dictionaries(names, values, max_size=6))
@example(NASTY)
def test_the_daemon_reads_back_what_was_written(variables: dict[str, str]) -> None:
    parsed = env_file.parse(dotenv.render(variables))

    assert parsed == env_file.Parsed(variables, ())


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(names, values, max_size=20))
@example(NASTY)
def test_a_shell_that_sources_the_file_sees_the_same(
    tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("env") / ".env"
    path.write_bytes(dotenv.render(variables).encode())

    assert sourced(path) == variables
    assert env_file.read(path).variables == variables


def test_a_plain_value_stands_without_quotes() -> None:
    text = dotenv.render({"B": "http://h:1/p", "A": "two words"})

    assert text == dotenv.HEADER + 'A="two words"\nB=http://h:1/p\n'


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "Ä", "A\n"])
def test_a_name_that_is_no_identifier_is_refused(name: str) -> None:
    with pytest.raises(errors.InvalidParams):
        dotenv.render({name: "x"})


@pytest.mark.parametrize("value", ["sesame\0", "sesame\ud800"])
def test_a_value_no_environment_can_carry_is_refused_without_showing_it(value: str) -> None:
    with pytest.raises(errors.InvalidParams) as refused:
        dotenv.render({"KEY": value})

    assert "KEY" in refused.value.message
    assert "sesame" not in f"{refused.value!r} {refused.value.__cause__!r}"
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
