"""Log lines: JSON on stderr, without secrets.

`log = logs.get(__name__)`, then `log.info("rpc_served", method=…, took_ms=…)`: the event is a constant,
facts are keys. What is bound (`request_id`, `machine_id`, `stage_run_id`) is on every line of its task.
Everything that leaves passes `redact`; the services' own renderer feeds through the same function. Formatting
a line never raises.
"""

import contextlib
import contextvars
import json
import logging
import re
import sys
import time
import types
from collections.abc import Iterator, Mapping
from typing import Any, Final, TextIO

import msgspec

HIDDEN = "***"
HIDDEN_ENDINGS: Final = (
    "token", "tokens", "password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials",
    "authorization", "seed", "jwt", "cookie", "privatekey", "signingkey", "secretkey", "apikey", "creds",
)  # fmt: skip
"""A key is hidden that ends so in lower case without `_`, `-` and `.`: `gitSecret`, `access_token`."""
HIDDEN_NAMES: Final = frozenset(
    {
        "env",
        "environ",
        "environment",
        "content",
        "stdin",
        "stdout",
        "stderr",
        "body",
        "payload",
        "params",
        "headers",
    }
)
"""Keys hidden as they are: what people run and write is theirs. `env` is hidden, `env_desired` is not."""
_HARMLESS = bool | None
_DEPTH_MAX = 8
_PATTERNS: Final = (
    (
        re.compile(
            r"-----BEGIN [A-Z0-9 ]*(?:SEED|PRIVATE KEY|USER JWT)-----.*?(?:-----END|------END|\Z)", re.DOTALL
        ),
        HIDDEN,
    ),
    (re.compile(r"\bpdk_[A-Za-z0-9_-]+"), "pdk_" + HIDDEN),
    (re.compile(r"\b[SP][UAONCX][A-Z2-7]{56}\b"), "nkey_" + HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){0,2}"), "jwt_" + HIDDEN),
    (re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)[^\s/@\"'<>]+@"), r"\1" + HIDDEN + "@"),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{4,}", re.IGNORECASE), r"\1 " + HIDDEN),
)
_MAYBE: Final = re.compile(r"-----BEGIN |pdk_|[SP][UAONCX][A-Z2-7]{8}|eyJ|://|earer|asic", re.IGNORECASE)
"""Cheap first look: most texts hold none of it."""

_NOTHING: Final[Mapping[str, Any]] = types.MappingProxyType({})
_bound: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar("log_context", default=_NOTHING)


def bind(**facts: Any) -> None:
    """Put facts on every later line of this task and of those it starts."""
    _bound.set({**_bound.get(), **facts})


@contextlib.contextmanager
def bound(**facts: Any) -> Iterator[None]:
    """Put facts on every line inside the block."""
    before = _bound.set({**_bound.get(), **facts})
    try:
        yield
    finally:
        _bound.reset(before)


def context() -> Mapping[str, Any]:
    """What is bound here."""
    return _bound.get()


def redact(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without secrets: hidden keys, and in every text whatever looks like one."""
    return {key: _redact_member(key, value, 0) for key, value in facts.items()}


def redact_text(text: str) -> str:
    """The text without tokens, seeds, JWTs and passwords in URLs."""
    if _MAYBE.search(text) is None:
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def is_hidden(key: str) -> bool:
    """Whether values under this key never appear."""
    plain = key.lower().replace("_", "").replace("-", "").replace(".", "")
    return plain in HIDDEN_NAMES or plain.endswith(HIDDEN_ENDINGS)


def _redact_member(key: Any, value: Any, depth: int) -> Any:
    if isinstance(key, str) and is_hidden(key) and not isinstance(value, _HARMLESS):
        return HIDDEN
    return _redact_value(value, depth)


def _redact_value(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, int | float | None):
        return value
    if depth >= _DEPTH_MAX:
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(key): _redact_member(key, member, depth + 1) for key, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redact_value(member, depth + 1) for member in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return redact_text(str(value))


class Logger:
    """A stdlib logger that takes facts by name."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **facts: Any) -> None:
        """For the author."""
        self._emit(logging.DEBUG, event, facts)

    def info(self, event: str, **facts: Any) -> None:
        """What an operator would tell a colleague."""
        self._emit(logging.INFO, event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """Somebody may have to act."""
        self._emit(logging.WARNING, event, facts)

    def error(self, event: str, *, cause: BaseException | None = None, **facts: Any) -> None:
        """A bug, with the traceback of `cause` if there is one."""
        self._emit(logging.ERROR, event, facts, cause)

    def exception(self, event: str, **facts: Any) -> None:
        """A bug, with the traceback of the exception being handled."""
        self._emit(logging.ERROR, event, facts, sys.exception())

    def is_enabled(self, level: int) -> bool:
        """Whether a line of this level would be written; ask before collecting costly facts."""
        return self._logger.isEnabledFor(level)

    def _emit(
        self, level: int, event: str, facts: Mapping[str, Any], cause: BaseException | None = None
    ) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"facts": facts}, exc_info=cause, stacklevel=3)


def get(name: str) -> Logger:
    """The logger of a module."""
    return Logger(name)


class JsonLines(logging.Formatter):
    """One JSON object a line: `at level service logger event`, then what is bound, then the facts."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line, redacted. Never raises: what cannot be rendered is said to be so."""
        members: dict[str, Any] = {
            "at": _time_text(record.created),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": redact_text(_message(record)),
        }
        facts = {**context(), **getattr(record, "facts", {})}
        try:
            members.update((key, value) for key, value in redact(facts).items() if key not in members)
        except Exception as error:  # noqa: BLE001 - a fact whose str() fails must not lose the line
            members["unprintable"] = type(error).__name__
        if record.exc_info and record.exc_info[0] is not None:
            members["traceback"] = redact_text(self.formatException(record.exc_info))
        return _line(members)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        return str(record.msg)


def _time_text(created_s: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(created_s))}.{int(created_s * 1000) % 1000:03d}Z"


def _line(members: Mapping[str, Any]) -> str:
    try:
        return msgspec.json.encode(members).decode()
    except (msgspec.MsgspecError, UnicodeEncodeError, TypeError, OverflowError):
        # Lone surrogates, as in undecodable file names: the slower encoder escapes them.
        return json.dumps(members, default=str)


def configure(service: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (stderr) as JSON, and nowhere else."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(service))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Connections that end by TLS close make asyncio warn about our own business.
    logging.getLogger("asyncio").setLevel(max(logging.WARNING, root.level))
