"""Handing git a secret without leaving it anywhere.

The secret travels in the environment of one call: the journal keeps only a digest of it, and it is gone with the process.
The script git asks holds none, and answers for one origin only, so a redirect cannot carry the secret to another host.
Helpers of the machine's user are switched off for the call; one of them might write the secret to disk.
"""

import dataclasses
from urllib import parse

SCRIPT_PATH = "~/.paddock/setup/askpass"
SCRIPT_MODE = 0o700
SCRIPT = """\
#!/bin/sh
# Answers git's questions about one origin, from the environment of one call. Holds no secret.
case "$1" in
"Username for '$PADDOCK_GIT_ORIGIN': ") printf '%s\\n' "$PADDOCK_GIT_USERNAME" ;;
"Password for '$PADDOCK_GIT_ORIGIN': " | \\
"Password for '$PADDOCK_GIT_LOGIN': " | \\
"Password for '$PADDOCK_GIT_LOGIN_QUOTED': ")
    printf '%s\\n' "$PADDOCK_GIT_PASSWORD" ;;
*) exit 1 ;;
esac
"""
TOKEN_USER = "x-access-token"  # noqa: S105 - a user name, not a token
"""For a bare token; the hosts that know tokens take it with any name, or with this one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Login:
    """A user and password for the origin of one URL."""

    url: str
    username: str = dataclasses.field(repr=False)
    password: str = dataclasses.field(repr=False)

    def options(self) -> list[str]:
        """Options of git, before the subcommand. They hold no secret."""
        # Git lets the most specific setting win, so an empty helper is given for every form the user's could have.
        scopes = ("credential", f"credential.{_origin(self.url)}", f"credential.{self.url}")
        settings = [f"{scope}.{key}" for scope in scopes for key in ("helper=", "useHttpPath=false")]
        return [part for setting in settings for part in ("-c", setting)]

    def env(self, script_path: str) -> dict[str, str]:
        """Variables of the call; `script_path` is where the machine has the script, absolute."""
        scheme, host = _origin(self.url).split("://", 1)
        return {
            "GIT_ASKPASS": script_path,
            "PADDOCK_GIT_ORIGIN": f"{scheme}://{host}",
            "PADDOCK_GIT_LOGIN": f"{scheme}://{self.username}@{host}",
            "PADDOCK_GIT_LOGIN_QUOTED": f"{scheme}://{parse.quote(self.username, safe='')}@{host}",
            "PADDOCK_GIT_USERNAME": self.username,
            "PADDOCK_GIT_PASSWORD": self.password,
        }


def login(url: str, secret: str | None) -> Login | None:
    """The login a secret (`token` or `user:password`) means for `url`; None where git would not ask for one."""
    if not secret or not url.startswith(("http://", "https://")):
        return None
    name, colon, password = secret.partition(":")
    return Login(url, name or TOKEN_USER, password) if colon else Login(url, TOKEN_USER, secret)


def _origin(url: str) -> str:
    scheme, rest = url.split("://", 1)
    return f"{scheme}://{rest.split('/', 1)[0]}"
