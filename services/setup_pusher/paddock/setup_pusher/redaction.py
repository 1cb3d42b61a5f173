"""What a failed command said, fit to be shown: its last lines, without the secrets it was given.

What looks like a secret is hidden by `paddock.bus.logs`; what we know to be one is hidden here, in every spelling a
program might print it in. Hidden before it is cut, so no half of one is left at the edge.
"""

import base64
from collections.abc import Iterable, Iterator
from urllib import parse

from paddock.bus import logs

TAIL_CHARS = 4096
SECRET_CHARS_MIN = 6
"""A shorter value would hide half the words of the text, and is no secret."""


def tail(text: str, secrets: Iterable[str], *, limit_chars: int = TAIL_CHARS) -> str:
    """The end of `text` from the start of a line, without `secrets`."""
    shown = hide(text, secrets).strip()
    if len(shown) <= limit_chars:
        return shown
    cut = shown[-limit_chars:]
    return cut[cut.find("\n") + 1 :]


def hide(text: str, secrets: Iterable[str]) -> str:
    """`text` without `secrets`."""
    spellings = {spelling for secret in secrets for spelling in _spellings(secret)}
    # The longest first: a part hidden inside a whole would leave the rest of it readable.
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, logs.HIDDEN)
    return logs.redact_text(text)


def gist(text: str) -> str:
    """The line that says most: the last that calls itself an error, as git does, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors_said = [line for line in lines if line.lower().startswith(("fatal:", "error:"))]
    return next(reversed(errors_said or lines), "")


def _spellings(secret: str) -> Iterator[str]:
    # A program that prints a key of many lines prints it line by line, perhaps indented.
    for part in {secret, *(line.strip() for line in secret.splitlines()), *secret.split(":", 1)}:
        if len(part) >= SECRET_CHARS_MIN:
            yield from (part, parse.quote(part, safe=""), parse.quote_plus(part), repr(part)[1:-1])
            yield base64.b64encode(part.encode()).decode().rstrip("=")
