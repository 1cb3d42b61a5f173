"""What may be handed to git: remote URLs, branches, and where a clone goes.

Everything here ends in the argv of a process in somebody's machine, so what git would read as an option or as
a remote helper is refused before it is stored. Pure text rules; whether the remote exists is git's to say.
Each check answers the text it was given, and raises ValueError with a sentence that never repeats it.
"""

import re
from typing import Final

URL_MAX_CHARS: Final = 2000
BRANCH_MAX_CHARS: Final = 244
"""A loose ref is a file; with `refs/heads/` and `.lock` it must stay a file name."""
PATH_MAX_CHARS: Final = 1000
RESERVED_DIRECTORY: Final = ".paddock"
"""The daemon's own folder in HOME; nothing is ever cloned over it."""

_SPACE_OR_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*)|\[[0-9A-Fa-f:.]+\])"
_WEB = re.compile(rf"https?://{_HOST}(?::[0-9]{{1,5}})?(?:/.*)?", re.ASCII)
_SSH = re.compile(rf"ssh://(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?{_HOST}(?::[0-9]{{1,5}})?/.+", re.ASCII)
_SCP = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]*@{_HOST}:(?!:)[^-:].*", re.ASCII)
_FILE = re.compile(r"file:///.+", re.ASCII)
_BRANCH_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")


def checked_url(url: str) -> str:
    """A remote: `https://`, `http://`, `ssh://`, `user@host:path` or `file:///`, without a password in it."""
    if len(url) > URL_MAX_CHARS:
        raise ValueError(f"must be at most {URL_MAX_CHARS} characters")
    if _SPACE_OR_CONTROL.search(url):
        raise ValueError("must not contain spaces or control characters")
    if url.startswith(("http://", "https://")):
        if "@" in url.split("/", 3)[2]:
            raise ValueError("must not contain a user or password; give them as the secret")
        if _WEB.fullmatch(url):
            return url
    elif _SSH.fullmatch(url) or _FILE.fullmatch(url) or _SCP.fullmatch(url):
        return url
    raise ValueError("must be https://, http://, ssh://, user@host:path or file:///")


def checked_branch(branch: str) -> str:
    """A branch name by the rules of git check-ref-format."""
    if not 1 <= len(branch) <= BRANCH_MAX_CHARS:
        raise ValueError(f"must be 1 to {BRANCH_MAX_CHARS} characters")
    if _BRANCH_FORBIDDEN.search(branch):
        raise ValueError("must not contain spaces, control characters, ~ ^ : ? * [ \\ .. @{ or //")
    if branch.startswith(("-", "/")) or branch.endswith(("/", ".")) or branch in {"@", "HEAD"}:
        raise ValueError("must not begin with - or /, end with / or ., or be @ or HEAD")
    if any(part.startswith(".") or part.endswith(".lock") for part in branch.split("/")):
        raise ValueError("must not have a part that begins with . or ends with .lock")
    return branch


def checked_path(path: str) -> str:
    """Where a clone goes: a path below the machine's HOME, `~/` before it or not, that cannot leave it."""
    if not 1 <= len(path) <= PATH_MAX_CHARS:
        raise ValueError(f"must be 1 to {PATH_MAX_CHARS} characters")
    if any(ord(character) < ord(" ") or character == "\x7f" for character in path):
        raise ValueError("must not contain control characters")
    parts = path.removeprefix("~/").split("/")
    if path.startswith("/") or any(part in {"", ".", "..", "~"} for part in parts):
        raise ValueError("must stay below the home directory: no leading /, no empty part, no . or ..")
    if any(part.startswith(("-", "~")) for part in parts):
        raise ValueError("must not have a part that begins with - or ~")
    if parts[0] == RESERVED_DIRECTORY:
        raise ValueError(f"must not be in {RESERVED_DIRECTORY}, which is the daemon's")
    return path
