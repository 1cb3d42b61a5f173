"""Both databases, migrated and empty, for any suite: `url(kind, folder)`."""

import contextlib
import functools
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from paddock.store import secrets
from paddock.store.migrations import upgrade
from tests.support import postgres

KINDS = ("sqlite", "postgres")
KEY = secrets.new_key()


@functools.cache
def _sqlite_template() -> pathlib.Path:
    path = pathlib.Path(tempfile.mkdtemp(prefix="pdksq-")) / "template.db"
    upgrade.upgrade(f"sqlite:///{path}")
    return path


@contextlib.contextmanager
def database(kind: str, folder: pathlib.Path) -> Iterator[str]:
    """The URL of a fresh database of this kind."""
    if kind == "postgres":
        with postgres.database() as url:
            yield url
        return
    path = folder / "paddock.db"
    shutil.copy(_sqlite_template(), path)
    yield f"sqlite:///{path}"


def box() -> secrets.SecretBox:
    return secrets.SecretBox([KEY])
