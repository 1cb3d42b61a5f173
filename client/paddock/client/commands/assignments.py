"""`NAME=VALUE`, and the forms that keep a secret out of the argument list: `NAME@FILE` and standard input.

What a file or standard input ends with, one line break, is not part of the value.
"""

import pathlib
import re
import sys
from collections.abc import Sequence

from paddock.contracts import errors
from paddock.contracts.api import base

_ASSIGNMENT = re.compile(r"([^=@]+)([=@])(.*)", re.DOTALL)
_NAME = re.compile(base.ENV_NAME_PATTERN)


def read(given: Sequence[str], *, stdin_name: str | None = None) -> dict[str, str]:
    """The variables that were given.

    Args:
        given: Each `NAME=VALUE` or `NAME@FILE`.
        stdin_name: The name of the variable whose value comes on standard input.

    Raises:
        errors.InvalidParams: One is neither, or its file cannot be read; the value is not in the message.
    """
    variables = dict(_one(text) for text in given)
    if stdin_name is not None:
        variables[_name(stdin_name)] = _trimmed(sys.stdin.read())
    return variables


def secret_from(path: pathlib.Path, what: str) -> str:
    """A secret in a file; `-` is standard input.

    Raises:
        errors.InvalidParams: It cannot be read, or is no text.
    """
    if str(path) == "-":
        return _trimmed(sys.stdin.read())
    return _trimmed(_file(path, what))


def pairs(given: Sequence[str], what: str) -> dict[str, str]:
    """`name=value` each, such as labels.

    Raises:
        errors.InvalidParams: One has no `=`.
    """
    found: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator:
            raise errors.InvalidParams(f"cannot read the {what} {text!r}: write it as name=value")
        found[name] = value
    return found


def _one(text: str) -> tuple[str, str]:
    match = _ASSIGNMENT.fullmatch(text)
    if match is None:
        # Perhaps a value without its name: not repeated here.
        raise errors.InvalidParams("cannot read a variable: write it as NAME=VALUE or NAME@FILE")
    name = _name(match[1])
    if match[2] == "=":
        return name, match[3]
    return name, _trimmed(_file(pathlib.Path(match[3]), f"the value of {name}"))


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise errors.InvalidParams(
            "cannot set a variable: its name must be letters, digits and _, and not begin with a digit"
        )
    return text


def _file(path: pathlib.Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise errors.InvalidParams(f"cannot read {what} from {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise errors.InvalidParams(f"cannot read {what} from {path}: it is no UTF-8 text") from error


def _trimmed(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")
