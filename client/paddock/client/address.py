"""Where the gateway is and what to show it: an address and an access token.

Looked for in this order: what is given by hand, the environment (`PADDOCK_URL`, `PADDOCK_TOKEN`,
`PADDOCK_TOKEN_FILE`), the data folder of `paddock up` (`PADDOCK_DATA`, else the one in the working directory). The
folder's token is for the folder's gateway: it is never sent to another address.
"""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Mapping
from urllib import parse

from paddock.contracts import errors

DATA_FOLDER = ".paddock"
"""Of `paddock up`, in the working directory."""
GATEWAY_FILE, TOKEN_FILE = "gateway.json", "admin.token"
_TOKEN = re.compile(r"[\x21-\x7e]{1,512}")


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """A gateway as one caller reaches it; `token` is a secret and is not shown."""

    url: str
    token: str = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", checked_url(self.url))
        if not _TOKEN.fullmatch(self.token):
            raise errors.InvalidParams(
                "cannot use the access token: it must be one line of printable characters"
            )


def checked_url(url: str) -> str:
    """`url` without what may follow the path's last slash.

    Raises:
        errors.InvalidParams: It is no http:// or https:// address.
    """
    try:
        parts = parse.urlsplit(url.strip())
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_usable = False
        parts = parse.urlsplit("")
    if not is_usable or parts.query or parts.fragment or parts.username is not None:
        raise errors.InvalidParams(
            "cannot use the gateway's address: it must be http:// or https:// and a host, such as http://127.0.0.1:7480"
        )
    return parse.urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def find(
    *,
    url: str | None = None,
    token_file: pathlib.Path | None = None,
    environment: Mapping[str, str] = os.environ,
    folder: pathlib.Path | None = None,
) -> Address:
    """The gateway to ask.

    Args:
        url: Given by hand; None looks further.
        token_file: Given by hand; None looks further.
        environment: Where the variables are.
        folder: The data folder; `PADDOCK_DATA`, else `.paddock` in the working directory, unless given.

    Raises:
        errors.InvalidParams: Nothing says where the gateway is or what token to show, or a file cannot be read.
    """
    folder = folder if folder is not None else pathlib.Path(environment.get("PADDOCK_DATA") or DATA_FOLDER)
    local_url = _local_url(folder)
    chosen = url or environment.get("PADDOCK_URL") or local_url
    if not chosen:
        raise errors.InvalidParams(
            "cannot tell where the gateway is: give --url or PADDOCK_URL, or run this where `paddock up` was started"
        )
    token = _given_token(token_file, environment)
    if token is None and local_url and checked_url(chosen) == checked_url(local_url):
        token = _read(folder / TOKEN_FILE, "the access token of `paddock up`")
    if token is None:
        raise errors.InvalidParams(
            f"cannot ask {chosen} without an access token: give --token-file, PADDOCK_TOKEN_FILE or PADDOCK_TOKEN"
        )
    return Address(chosen, token)


def _given_token(token_file: pathlib.Path | None, environment: Mapping[str, str]) -> str | None:
    if token_file is not None:
        return _read(token_file, "the access token")
    if token := environment.get("PADDOCK_TOKEN"):
        return token.strip()
    if path := environment.get("PADDOCK_TOKEN_FILE"):
        return _read(pathlib.Path(path), "the access token of PADDOCK_TOKEN_FILE")
    return None


def _local_url(folder: pathlib.Path) -> str | None:
    path = folder / GATEWAY_FILE
    if not path.exists():
        return None
    try:
        found = json.loads(_read(path, "the address of `paddock up`"))
        return checked_url(str(found["url"]))
    except (ValueError, KeyError, TypeError) as error:
        raise errors.InvalidParams(
            f"cannot read the gateway's address in {path}: it has no member url"
        ) from error


def _read(path: pathlib.Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise errors.InvalidParams(f"cannot read {what} in {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise errors.InvalidParams(f"cannot read {what} in {path}: it is no text") from error
