"""A TCP port inside a machine, reached over the bus: `port.open` of a daemon."""

from typing import Annotated

import msgspec

from paddock.contracts import rpc

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class OpenParams(rpc.Wire, frozen=True):
    """Connect to this port of the machine's own loopback addresses."""

    port: Port


class Open(rpc.Answer, frozen=True):
    """Connected."""

    address: str = ""


class Closed(rpc.Answer, frozen=True):
    """How many bytes went each way; `reset` when the connection did not end in order."""

    sent_bytes: int
    received_bytes: int
    reset: bool = False


OPEN = rpc.ChannelMethod("port.open", OpenParams, Open, Closed)
"""Frames DATA both ways, EOF when a side sends no more."""
