"""`paddock port-url MACHINE PORT`: an address of a port that needs no token, for a browser, until it expires."""

from typing import Annotated

import typer

from paddock.client.commands import desk, failures, noun
from paddock.contracts.api import ports

app = noun.Noun("An address of a machine's port that needs no token until it expires.")


@app.verb("port-url")
async def port_url(
    at: desk.Desk,
    machine: Annotated[str, typer.Argument(help="The machine's id.")],
    port: Annotated[int, typer.Argument(help="Where the application listens in the machine.")],
    expires_s: Annotated[
        float, typer.Option("--expires-s", help=f"Seconds until it expires, up to {ports.URL_MAX_S:g}.")
    ] = ports.URL_S,
    path: Annotated[str, typer.Option(help="Of the application, with its query.")] = "/",
) -> None:
    """Print an address that lets whoever has it reach a port of a machine, with nothing else to show.

    As in: paddock port-url --expires-s 600 --path /docs m123 3000

    With --json also the one by path, for where names such as 3000--m123.localhost do not resolve, and when both expire.
    """
    found = await at.client.machine(machine).port_url(port, path, expires_s=expires_s)
    # Never through a table: an address that is folded is none.
    print(found.model_dump_json(by_alias=True) if at.is_json else failures.printable(found.url), flush=True)
