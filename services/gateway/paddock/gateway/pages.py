"""Paging: a cursor is where the page before ended, opaque to callers and checked when it comes back."""

import re
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from paddock.contracts import errors

_FORM: Final = re.compile(r"([0-9]{1,15})-([a-z0-9]{1,40})", re.ASCII)


class Row(Protocol):
    """What can be listed: newest first, and by id where two are of one millisecond."""

    @property
    def id(self) -> str: ...
    @property
    def created_at(self) -> int: ...


RowT = TypeVar("RowT", bound=Row)


def after(cursor: str | None) -> tuple[int, str] | None:
    """Where the page begins.

    Raises:
        errors.InvalidParams: It is no cursor of ours.
    """
    if cursor is None:
        return None
    form = _FORM.fullmatch(cursor)
    if form is None:
        raise errors.InvalidParams("cannot use this cursor: it is none that we gave")
    return int(form[1]), form[2]


def cut(rows: Sequence[RowT], limit: int) -> tuple[Sequence[RowT], str | None]:
    """The page, and the cursor of the next one. Ask the store for `limit + 1` rows."""
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], f"{last.created_at}-{last.id}"
