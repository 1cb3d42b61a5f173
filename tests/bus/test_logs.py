"""No secret leaves by a log line, and no line is lost."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from paddock.bus import credentials, logs


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What was logged, parsed when the list is looked at last."""
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.configure("prober", "DEBUG", stream)

    class Parsed(list[dict[str, Any]]):
        def __getitem__(self, index: Any) -> Any:
            return [json.loads(line) for line in stream.getvalue().splitlines()][index]

    yield Parsed()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for handler in before:
        root.addHandler(handler)
    root.setLevel(level)


def test_a_line_holds_when_where_what_and_its_facts(lines: list[dict[str, Any]]) -> None:
    logs.get("paddock.prober.work").info("probe_succeeded", machine_id="m1", took_ms=12)

    line = lines[0]
    at = line.pop("at")
    assert line == {
        "level": "info",
        "service": "prober",
        "logger": "paddock.prober.work",
        "event": "probe_succeeded",
        "machine_id": "m1",
        "took_ms": 12,
    }
    assert at.endswith("Z")


def test_what_is_bound_is_on_every_line_inside_and_gone_after(lines: list[dict[str, Any]]) -> None:
    log = logs.get("test")
    with logs.bound(request_id="r1"):
        log.info("inside", machine_id="m1")
    log.info("outside")

    assert (lines[0]["request_id"], lines[0]["machine_id"]) == ("r1", "m1")
    assert "request_id" not in lines[1]


@pytest.mark.parametrize(
    "key",
    [
        "token", "accessToken", "access_token", "PASSWORD", "db-password", "git_secret", "credentials", "Authorization",
        "seed", "user_jwt", "env", "content", "stdin", "set-cookie", "private_key", "api_key", "creds",
    ],
)  # fmt: skip
def test_values_under_secret_names_are_hidden(key: str) -> None:
    assert logs.redact({key: "hunter2"}) == {key: "***"}
    assert logs.redact({"deep": [{key: {"nested": "hunter2"}}]}) == {"deep": [{key: "***"}]}


@pytest.mark.parametrize("key", ["env_desired", "user_key", "tokens_left", "machine_id", "content_bytes"])
def test_names_that_only_resemble_secrets_are_kept(key: str) -> None:
    assert logs.redact({key: "7"}) == {key: "7"}


_SEED = credentials.new_user_key().seed
_ACCOUNT_SEED = credentials.new_account_key().seed
_JWT = credentials.mint(
    credentials.new_account_key(), subject="U", name="m1-1", claims={"type": "user"}, issued_at_s=1
)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("used pdk_live_AbC-123_x today", "AbC-123"),
        (f"seed {_SEED}!", _SEED),
        (f"seed {_ACCOUNT_SEED}", _ACCOUNT_SEED),
        (f"login with {_JWT}", _JWT.split(".")[1]),
        ("clone https://joe:hunter2@example.org/a.git failed", "hunter2"),
        ("clone https://ghp_abcdef@example.org/a.git failed", "ghp_abcdef"),
        ("header Authorization: Bearer abc.DEF-123", "abc.DEF-123"),
        (credentials.creds_text(_JWT, _SEED), _SEED[5:40]),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNza", "b3BlbnNza"),
    ],
    # Named, for the keys are new in each process and every worker must collect the same.
    ids=[
        "access token",
        "user seed",
        "account seed",
        "jwt",
        "url password",
        "url token",
        "bearer",
        "creds",
        "pem",
    ],
)
def test_what_looks_like_a_secret_is_cut_out_of_any_text(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in logs.redact_text(text)
    assert secret not in str(logs.redact({"reason": text, "list": [text], "object": ValueError(text)}))


def test_ordinary_text_is_left_as_it_is() -> None:
    text = "cannot clone https://example.org/a.git: exit code 128 (took 12.5 ms) user@example.org"

    assert logs.redact_text(text) == text


def test_a_traceback_is_kept_and_redacted(lines: list[dict[str, Any]]) -> None:
    log = logs.get("test")
    try:
        int("nats://joe:hunter2@bus:4222")
    except ValueError:
        log.exception("bug_met")

    assert (
        "ValueError: invalid literal for int() with base 10: 'nats://***@bus:4222'" in lines[0]["traceback"]
    )
    assert lines[0]["level"] == "error"


def test_lines_of_other_libraries_are_json_and_redacted(lines: list[dict[str, Any]]) -> None:
    logging.getLogger("other").warning("tried %s with pdk_abc", "this")

    assert lines[0]["event"] == "tried this with pdk_***"


def test_a_broken_format_of_another_library_does_not_lose_its_line() -> None:
    record = logging.LogRecord("other", logging.WARNING, "other.py", 1, "%d of %d", ("x",), None)

    assert json.loads(logs.JsonLines("prober").format(record))["event"] == "%d of %d"


class _Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_a_fact_that_cannot_be_printed_does_not_lose_the_line(lines: list[dict[str, Any]]) -> None:
    logs.get("test").info("odd_fact", thing=_Unprintable())

    assert lines[0]["event"] == "odd_fact"
    assert lines[0]["unprintable"] == "RuntimeError"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"\x00secret", "<7 bytes>"),
        ("\udc80", "\udc80"),
        (2**80, 2**80),
        ({"a": (1, None)}, {"a": [1, None]}),
    ],
)
def test_any_value_makes_a_line(lines: list[dict[str, Any]], value: object, shown: object) -> None:
    logs.get("test").info("value_seen", value=value)

    assert lines[0]["value"] == shown


def test_facts_cannot_overwrite_what_a_line_is_made_of(lines: list[dict[str, Any]]) -> None:
    logs.get("test").info("real", level="fake", service="fake")

    assert (lines[0]["level"], lines[0]["service"]) == ("info", "prober")


def test_a_structure_without_end_is_cut() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless

    assert "***" in str(logs.redact(endless))
