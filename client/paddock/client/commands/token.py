"""`paddock token`: access tokens for the gateway."""

import os
import pathlib
import re
from typing import Annotated

import typer

from paddock.client.commands import desk, failures, noun, views
from paddock.contracts import errors
from paddock.contracts.api import tokens

app = noun.Noun("Access tokens for the gateway.")

_LIFETIME = re.compile(r"([0-9]{1,9})([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.verb("create")
async def create(
    at: desk.Desk,
    name: Annotated[str, typer.Argument(help="Who or what it is for.")],
    ttl: Annotated[
        str | None, typer.Option(help="How long it works, such as 90d, 12h; for ever unless given.")
    ] = None,
    target: Annotated[
        pathlib.Path | None, typer.Option("--to", help="A new file for its text, for the owner only.")
    ] = None,
) -> None:
    """Make an access token and print its text, which is shown this once."""
    ttl_s = None if ttl is None else _seconds(ttl)
    if target is not None and target.exists():
        raise errors.InvalidParams(f"cannot keep a token in {target}: the file exists")
    made = await at.client.tokens.create(name, ttl_s=ttl_s)
    if target is not None:
        _keep(made, target)
        failures.say(f"token {made.token.id} is in {target}")
    elif at.is_json:
        print(made.model_dump_json(by_alias=True))
    else:
        failures.say(f"token {made.token.id}; its text is not shown again:")
        print(made.text)


@app.verb("list")
async def list_(at: desk.Desk) -> None:
    """Show all access tokens, without their text."""
    at.show(await at.client.tokens.list(), views.token_list)


@app.verb("revoke")
async def revoke(at: desk.Desk, token: Annotated[str, typer.Argument(help="Its id.")]) -> None:
    """End an access token; it is refused within seconds everywhere."""
    await at.client.tokens.revoke(token)
    at.done(f"revoked token {token}")


def _keep(made: tokens.NewToken, target: pathlib.Path) -> None:
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise errors.InvalidParams(
            f"cannot keep token {made.token.id} in {target}: {error.strerror}; revoke it and make another"
        ) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{made.text}\n")


def _seconds(text: str) -> int:
    match = _LIFETIME.fullmatch(text)
    if match is None:
        raise errors.InvalidParams(f"cannot use the lifetime {text!r}: write it as 30m, 12h or 90d")
    return int(match[1]) * _UNIT_S[match[2]]
