"""The `paddock` command."""

import os
import sys
from types import TracebackType

import typer

from paddock.client.commands import failures, root


def main() -> None:
    """Run one command; its exit code is the process's."""
    sys.excepthook = _bug
    # Not `root.app()`, which would set a hook of its own.
    typer.main.get_command(root.app)(prog_name="paddock")


def _bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What nobody expected: a sentence for people, everything for PADDOCK_DEBUG=1 (it may hold values)."""
    if os.environ.get("PADDOCK_DEBUG"):
        sys.__excepthook__(kind, error, trace)
    else:
        failures.say(
            f"cannot go on: {kind.__name__}; this is a bug of the command, and PADDOCK_DEBUG=1 shows where"
        )
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter would exit with 1, which `paddock exec` keeps for the command.
    os._exit(failures.OTHER)


if __name__ == "__main__":
    main()
