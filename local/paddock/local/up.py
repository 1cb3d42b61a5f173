"""`paddock up`: the stack on this machine, until ctrl-c.

The `paddock` command finds this by its entry point. Machines run on when it stops and are found again by the next
one on the same data folder.
"""

import asyncio
import contextlib
import os
import pathlib
import shlex
from collections.abc import Iterator
from typing import Annotated, TextIO

import typer
import uvloop

from paddock.bus import lifecycle, logs
from paddock.client import address
from paddock.contracts import errors
from paddock.local import data as data_folder
from paddock.local import narrator, sandboxes, stack, wiring

LOG = "paddock.log"


def up(
    data: Annotated[
        pathlib.Path, typer.Option(help="What is kept: keys, ports, database, sandboxes.")
    ] = pathlib.Path(".paddock"),
    port: Annotated[
        int,
        typer.Option(help="The gateway's, if it is free; then the folder keeps it."),
    ] = wiring.GATEWAY_PORT,
    nats: Annotated[
        str, typer.Option(help="A nats-server that runs already and trusts the folder's operator.")
    ] = "",
    redis: Annotated[str, typer.Option(help="A Redis that runs already: redis://:password@host:port/0")] = "",
    database: Annotated[str, typer.Option(help="A database that runs already: postgresql://…")] = "",
    unsafe_process_provider: Annotated[
        bool, typer.Option(help="Allow machines that are plain processes, without any isolation.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR; to <data>/logs.")] = "INFO",
) -> None:
    """Run the control plane on this machine until ctrl-c."""
    settings = wiring.Settings(
        data=data,
        gateway_port=port,
        nats=nats,
        redis=redis,
        database=database,
        unsafe_process_provider=unsafe_process_provider,
        log_level=log_level.upper(),
    )
    say = narrator.Narrator()
    try:
        uvloop.run(_run(say, settings))
    except errors.Fault as fault:
        say.error(fault.message)
        raise typer.Exit(1) from None


async def _run(say: narrator.Narrator, settings: wiring.Settings) -> None:
    stop = asyncio.Event()
    lifecycle.on_signals(stop)
    running = stack.Stack(settings)
    is_first = not running.folder.admin_token_path.exists()
    with _log_file(running.folder.logs_dir / LOG, settings.log_level):
        async with running:
            await _say_hello(say, running, is_first=is_first)
            await stop.wait()
            say.notice("stopping; machines run on")
    say.fact("stopped", str(running.folder.path))


async def _say_hello(say: narrator.Narrator, running: stack.Stack, *, is_first: bool) -> None:
    say.title("Paddock is up")
    say.fact("gateway", running.url)
    say.fact("token", str(running.folder.admin_token_path))
    say.fact("logs", str(running.folder.logs_dir))
    provider, why_not = await sandboxes.best(running.addresses.runtime)
    if why_not:
        say.notice(f"bubblewrap cannot run here: {why_not}")
        if running.settings.unsafe_process_provider:
            say.notice(f"projects with the provider {provider} get machines WITHOUT ISOLATION")
    if running.folder.path != data_folder.DataFolder(pathlib.Path(address.DATA_FOLDER)).path:
        say.fact("first", f"export PADDOCK_DATA={shlex.quote(str(running.folder.path))}")
    if is_first:
        say.fact("next", "paddock project create hello && paddock machine create --project hello --wait")
    else:
        say.fact("next", "paddock machine list")


@contextlib.contextmanager
def _log_file(path: pathlib.Path, level: str) -> Iterator[TextIO]:
    """The log of every service in this process; a terminal shows what a person wants to read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as stream:
        logs.configure("paddock", level, stream)
        yield stream
