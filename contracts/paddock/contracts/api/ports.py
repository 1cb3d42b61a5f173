"""Ports inside a machine: as a stream of bytes, and over HTTP by name or path.

HTTP and WebSocket requests to `<port>--<machine>.<domain>` and to `/machines/<id>/ports/<port>/…` of the gateway reach the
port. They show an access token, or come with a signed address that lets a browser in for a while.
"""

from typing import Annotated

import pydantic

from paddock.contracts.api import base, streams

URL_S = 3600.0
URL_MAX_S = 7 * 24 * 3600.0
TICKET_PARAMETER = "paddock-ticket"
"""In the query of a signed address; it becomes a cookie and never reaches the application."""
TICKET_COOKIE = "paddock-ticket"
TOKEN_HEADER = "X-Paddock-Token"  # noqa: S105 - a name
"""An access token beside an `Authorization` that is meant for the application."""

ERROR_HEADER = "X-Paddock-Error"
"""On an answer that is the gateway's own and not the application's: which fault it is. Its body holds the rest."""

Port = Annotated[int, pydantic.Field(ge=1, le=65_535, description="On the machine's own loopback addresses.")]


class MachinePortOpen(base.Params):
    """Connect to a port; DATA frames both ways, EOF when a side sends no more."""

    machine_id: base.MachineId
    port: Port


class PortOpened(streams.StreamOpened):
    """Connected."""

    address: str = ""


class PortClosed(base.Result):
    """The result of the stream."""

    sent_bytes: int
    received_bytes: int
    reset: bool = False


class MachinePortUrl(base.Params):
    """An address that lets whoever has it reach one port of one machine until it expires."""

    machine_id: base.MachineId
    port: Port
    expires_s: Annotated[float, pydantic.Field(gt=0, le=URL_MAX_S)] = URL_S
    path: Annotated[
        str, pydantic.Field(max_length=2048, pattern=r"^/[^\x00-\x20\x7f]*$", description="With its query.")
    ] = "/"


class PortUrl(base.Result):
    """By host name, and by path for where such names do not resolve; both hold the ticket."""

    url: str
    path_url: str
    expires_at: base.Moment
