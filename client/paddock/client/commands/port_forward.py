"""`paddock port-forward MACHINE 8080:3000`: ports of a machine, as if they were here.

Each connection to our side is one connection there, whatever is spoken over it. One that cannot be made is closed at once,
and stderr says why; the others go on.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import struct
from typing import Annotated, Final

import typer

from paddock.client import machine as machine_of
from paddock.client import ports
from paddock.client.commands import desk, failures, noun, signals
from paddock.contracts import errors, phases
from paddock.contracts.api import machines

app = noun.Noun("Ports of a machine, as if they were on this one.")

LOOPBACK: Final = "127.0.0.1"
READ_BYTES: Final = 64 * 1024
_WRITTEN: Final = re.compile(r"(?:([0-9]{1,5}):)?([0-9]{1,5})", re.ASCII)
_PORT_MAX: Final = 65_535
_AT_ONCE: Final = struct.pack("ii", 1, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """One port here and one there; 0 here is any that is free."""

    here: int
    there: int


@app.verb("port-forward")
async def port_forward(
    at: desk.Desk,
    machine: Annotated[str, typer.Argument(help="The machine's id.")],
    pairs: Annotated[
        list[str],
        typer.Argument(
            metavar="[HERE:]THERE…", help="Ports here and there; one alone is both, and 0 here any free one."
        ),
    ],
    bind: Annotated[
        str, typer.Option(help="The address to listen on; whoever reaches it reaches the machine's port.")
    ] = LOOPBACK,
) -> None:
    """Listen here and pass every connection on to a port of an active machine, until Ctrl-C.

    As in: paddock port-forward m123 8080:3000 5432
    """
    wanted = [pair_of(text) for text in pairs]
    _expect_living(await at.client.machines.get(machine))
    stop = asyncio.Event()
    forwarding = Forwarding(at.client.machine(machine), is_json=at.is_json)
    with signals.handled({signal.SIGINT: stop.set, signal.SIGTERM: stop.set}):
        await forwarding.run(wanted, bind, stop)


def pair_of(text: str) -> Pair:
    """`8080:3000` or `3000`.

    Raises:
        errors.InvalidParams: It is neither, or no port has such a number.
    """
    match = _WRITTEN.fullmatch(text)
    if match is not None:
        there = int(match[2])
        here = there if match[1] is None else int(match[1])
        if 1 <= there <= _PORT_MAX and here <= _PORT_MAX:
            return Pair(here, there)
    raise errors.InvalidParams(
        f"cannot forward {text!r}: give ports as HERE:THERE, such as 8080:3000, from 1 to {_PORT_MAX}"
    )


class Forwarding:
    """What listens here for one machine."""

    def __init__(self, machine: machine_of.Machine, *, is_json: bool = False) -> None:
        self._machine, self._is_json = machine, is_json
        self._carrying: set[asyncio.Task[None]] = set()
        self.listening: dict[int, int] = {}
        """Ports here, by those there."""
        self.is_listening = asyncio.Event()

    async def run(self, pairs: list[Pair], bind: str, stop: asyncio.Event) -> None:
        """Listen until `stop`, and then end every connection.

        Raises:
            errors.InvalidParams: A port here is taken, or not ours to listen on; then nothing listens.
        """
        async with contextlib.AsyncExitStack() as stack:
            tasks = asyncio.TaskGroup()
            servers: list[asyncio.Server] = []
            for pair in pairs:
                servers.append(await self._bound(pair, bind, tasks))
                stack.callback(servers[-1].close)
            await stack.enter_async_context(tasks)
            stack.callback(self._end)
            for server, pair in zip(servers, pairs, strict=True):
                await server.start_serving()
                self._say(server, pair)
            self.is_listening.set()
            await stop.wait()

    def _end(self) -> None:
        for task in tuple(self._carrying):
            task.cancel()

    async def _bound(self, pair: Pair, bind: str, tasks: asyncio.TaskGroup) -> asyncio.Server:
        def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = tasks.create_task(self._carry(pair.there, reader, writer), name=f"forward-{pair.there}")
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)

        try:
            return await asyncio.start_server(
                on_connection, bind, pair.here, limit=READ_BYTES, start_serving=False
            )
        except (OSError, UnicodeError) as error:
            raise errors.InvalidParams(f"cannot listen on {bind}:{pair.here}: {_reason(error)}") from error

    def _say(self, server: asyncio.Server, pair: Pair) -> None:
        host, port = server.sockets[0].getsockname()[:2]
        self.listening[pair.there] = port
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if self._is_json:
            print(json.dumps({"machine": self._machine.id, "local": where, "port": pair.there}), flush=True)
        else:
            print(f"{where} is port {pair.there} of {self._machine.id}", flush=True)

    async def _carry(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with await self._machine.connect(port) as there, asyncio.TaskGroup() as ways:
                ways.create_task(_to_machine(reader, there), name="to-machine")
                ways.create_task(_from_machine(there, writer), name="from-machine")
        except* errors.Fault as group:
            failures.say(_about(port, failures.sentence(_first(group))))
            _reset(writer)
        except* ConnectionError:
            _reset(writer)  # one side hung up in the middle: so does the other
        finally:
            writer.close()


def _expect_living(machine: machines.Machine) -> None:
    """Raises a fault when the machine has no ports and never gets any by itself."""
    sentence = f"cannot forward ports of machine {machine.id}: it is {machine.phase}"
    if machine.phase in {phases.Phase.DELETING, phases.Phase.DELETED}:
        raise errors.MachineGone(sentence)
    if machine.phase is phases.Phase.FAILED:
        raise errors.WrongPhase(sentence)


def _about(port: int, sentence: str) -> str:
    """The sentence with its port, once."""
    return sentence if re.search(rf"\bport {port}\b", sentence) else f"port {port}: {sentence}"


async def _to_machine(reader: asyncio.StreamReader, there: ports.Connection) -> None:
    try:
        while data := await reader.read(READ_BYTES):
            await there.write(data)
        await there.write_eof()
    except errors.ChannelBroken:
        # The application hung up first, as they do.
        if not there.has_ended:
            raise


async def _from_machine(there: ports.Connection, writer: asyncio.StreamWriter) -> None:
    while data := await there.read():
        writer.write(data)
        await writer.drain()
    if there.was_reset:
        raise ConnectionResetError("the application reset the connection")
    writer.write_eof()


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError | socket.gaierror) or error.errno is None:
        return "there is no such address"
    return os.strerror(error.errno).lower()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection so that its other end does not take that for an end in order."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    writer.transport.abort()


def _first(group: BaseExceptionGroup[errors.Fault]) -> errors.Fault:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
