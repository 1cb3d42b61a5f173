"""Moments as people see them: RFC 3339 text, where the store has unix milliseconds."""

from paddock.contracts import events


def text(at_ms: int | None) -> str | None:
    """The moment; None stays None."""
    return None if at_ms is None else events.time_text(at_ms)
