"""Permission bits as people type them: octal."""

from paddock.contracts import errors

MODE_MAX = 0o7777


def read(octal: str) -> int:
    """`755`.

    Raises:
        errors.InvalidParams: It is no octal number, or none of permission bits.
    """
    try:
        mode = int(octal, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= MODE_MAX:
        raise errors.InvalidParams(f"cannot use the mode {octal!r}: it must be octal, such as 600")
    return mode
