"""The daemon's runtime: the folder that sandboxes get read-only and start `paddockd` from.

It is a virtual environment with the daemon installed in it and nothing linked to anybody's sources.
"""

import pathlib
import sys

import paddock.daemon
from paddock.contracts import errors

COMMAND = "bin/paddockd"
CHECKOUT = "build/daemon-venv"
"""Where `make` puts it."""


def find() -> pathlib.Path:
    """The runtime of this installation.

    Raises:
        errors.NotFound: It was not built, and the daemon here is linked to a checkout.
    """
    package = pathlib.Path(next(iter(paddock.daemon.__path__))).resolve()
    if package.is_relative_to(pathlib.Path(sys.prefix).resolve()):
        return _checked(pathlib.Path(sys.prefix))  # installed from wheels: our own environment serves
    checkout = package.parents[2]
    return _checked(checkout / CHECKOUT)


def _checked(folder: pathlib.Path) -> pathlib.Path:
    if not (folder / COMMAND).is_file():
        raise errors.NotFound(
            f"cannot find the daemon's runtime in {folder}: run `make demo` or `make up` once"
        )
    return folder
