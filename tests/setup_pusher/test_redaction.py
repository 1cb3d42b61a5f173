import base64

import pytest

from paddock.setup_pusher import redaction

SECRET = "sesame/open+77 x"


@pytest.mark.parametrize(
    "spelling",
    [SECRET, "sesame%2Fopen%2B77%20x", "sesame%2Fopen%2B77+x", base64.b64encode(SECRET.encode()).decode()],
)
def test_a_secret_is_hidden_in_every_spelling(spelling: str) -> None:
    assert redaction.hide(f"<{spelling}>", [SECRET]) in {"<***>", "<***=>", "<***==>"}


def test_both_halves_of_a_login_are_hidden_apart() -> None:
    assert redaction.hide("user=bobbob pass=sesame", ["bobbob:sesame"]) == "user=*** pass=***"


def test_each_line_of_a_key_is_hidden() -> None:
    assert redaction.hide("x firstline\ny secondline", ["firstline\nsecondline\n"]) == "x ***\ny ***"


def test_a_short_value_hides_nothing() -> None:
    assert redaction.hide("a trueish thing", ["true", ""]) == "a trueish thing"


def test_a_password_in_a_url_is_hidden_although_nobody_named_it() -> None:
    assert "pw" not in redaction.hide("cloning https://u:pw@host/x", [])


def test_the_tail_begins_with_a_whole_line_and_no_half_of_a_secret() -> None:
    text = "first line\n" + "x" * 30 + " sesame-open-77\nlast"

    assert redaction.tail(text, ["sesame-open-77"], limit_chars=20) == "last"
    assert redaction.tail("short", []) == "short"


def test_the_gist_is_the_line_that_calls_itself_an_error_or_else_the_last() -> None:
    assert redaction.gist("one\ntwo\n\n  \n") == "two"
    assert redaction.gist("") == ""
    assert (
        redaction.gist("Cloning\nfatal: no such branch\nand the repository exists.")
        == "fatal: no such branch"
    )
