r"""The text of a `.env` file: what the daemon's parser and a shell both read back unchanged.

`KEY=value` where the value is plain, else `KEY="value"`. Inside the quotes only backslash, double quote, dollar and
backtick are escaped; a newline stands as it is. `\n` would be shorter, but a shell that sources the file reads it as two
characters. Nothing is ever expanded. Not for merging scopes: that is `environment`.
"""

import re
from collections.abc import Mapping

from paddock.contracts import errors

HEADER = "# Written by Paddock: what is changed here by hand is overwritten.\n"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+", re.ASCII)
_SPECIAL = re.compile(r'[\\"$`]')


def render(variables: Mapping[str, str]) -> str:
    """The whole file, sorted by name, so that equal variables give equal bytes.

    Raises:
        errors.InvalidParams: A name is no identifier, or a value holds what no environment can carry.
    """
    return HEADER + "".join(f"{_name(name)}={_value(name, variables[name])}\n" for name in sorted(variables))


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise errors.InvalidParams(
            "cannot write a variable: its name must be letters, digits and _, not a digit first"
        )
    return name


def _value(name: str, value: str) -> str:
    if "\0" in value:
        raise errors.InvalidParams(f"cannot write the variable {name}: its value holds a NUL byte")
    try:
        value.encode()
    except UnicodeEncodeError:
        # Without its cause, which quotes the value: a secret as likely as not.
        raise errors.InvalidParams(
            f"cannot write the variable {name}: its value is not valid Unicode"
        ) from None
    if _PLAIN.fullmatch(value):
        return value
    return '"' + _SPECIAL.sub(r"\\\g<0>", value) + '"'
