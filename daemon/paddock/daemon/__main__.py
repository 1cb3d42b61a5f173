"""`paddockd`: `supervise`, `run` and `keep` for machines, `tool …` and `version` for people inside them."""

import gc
import os
import sys

USAGE = """\
usage: paddockd supervise [--sandbox ID] | run | keep | version
       paddockd tool exec-command | write-file | read-file …
"""
EXIT_USAGE, EXIT_CONFIG = 2, 78
_WITH_SANDBOX = 3
RUN = (sys.executable, "-I" if sys.flags.isolated else "-P", "-m", "paddock.daemon", "run")
"""-P: a file named like a module in the working directory must not take its place. -I: nor a variable bring one."""


def main() -> int:
    """Do what the command line says; returns the exit code."""
    arguments = sys.argv[1:] or [""]
    if arguments[0] == "supervise":
        return _supervise()
    if arguments[0] == "run":
        return _run()
    if arguments[0] == "keep":
        return _keep()
    if arguments[0] == "tool":
        from paddock.daemon import commands  # noqa: PLC0415 - each only what it needs; see _supervise

        return commands.main(arguments[1:], os.environ)
    if arguments[0] == "version":
        from paddock.daemon import version  # noqa: PLC0415

        print(version.VERSION)
        return 0
    print(USAGE, end="", file=sys.stderr)
    return EXIT_USAGE


def _supervise() -> int:
    # No further import here or there: this process is in memory for as long as the machine lives.
    from paddock.daemon import supervise  # noqa: PLC0415

    # Named on the command line so that whoever lists processes sees whose supervisor this is.
    sandbox = sys.argv[3] if sys.argv[2:3] == ["--sandbox"] and len(sys.argv) > _WITH_SANDBOX else ""
    return supervise.main(_folder(), RUN, sandbox=sandbox)


def _keep() -> int:
    # Nor here: it is in memory wherever a command was started.
    from paddock.daemon import keeper  # noqa: PLC0415

    return keeper.main(_folder(), supervisor_pid=int(os.environ.get("PADDOCK_SUPERVISOR") or 0))


def _folder() -> str:
    """As `settings.folder_of`, which would bring half the library along."""
    home = os.environ.get("HOME", "").rstrip("/")
    return os.environ.get("PADDOCK_HOME") or f"{home}/.paddock"


def _run() -> int:
    # Everything imported stays: collecting it again and again while it comes is a fifth of the time to ready.
    gc.disable()
    # nats-py imports aiohttp where it finds it, for a WebSocket we never open: half a second and 14 MiB.
    sys.modules["aiohttp"] = None  # type: ignore[assignment]
    from paddock.daemon import run, settings  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    try:
        told = settings.load(os.environ)
    except settings.SettingsError as error:
        print(f"paddockd: {error}", file=sys.stderr)
        return EXIT_CONFIG
    return run.main(told)


if __name__ == "__main__":
    sys.exit(main())
