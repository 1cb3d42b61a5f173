"""`machine.portOpen`: a port inside a machine as a stream of bytes both ways. Over HTTP, see `port_proxy`."""

import contextlib

from paddock.bus import channel_client
from paddock.contracts import errors, rpc
from paddock.contracts import ports as asked
from paddock.contracts.api import methods, ports
from paddock.contracts.api import streams as wire
from paddock.gateway import jsonrpc, machine_link, streams

Channel = channel_client.OpenChannel[asked.Open, asked.Closed]


class Ports:
    def __init__(self, link: machine_link.MachineLink) -> None:
        self._link = link

    def routes(self) -> tuple[jsonrpc.AnyRoute, ...]:
        return (jsonrpc.Route(methods.MACHINE_PORT_OPEN, self.open),)

    async def open(self, params: ports.MachinePortOpen, call: jsonrpc.Call) -> ports.PortOpened:
        async def run(stream: streams.Stream[ports.PortOpened]) -> ports.PortClosed:
            wanted = asked.OpenParams(port=params.port)
            async with self._link.open(params.machine_id, asked.OPEN, wanted) as channel:
                opened = ports.PortOpened(stream=stream.number, address=channel.opened.address)
                await stream.opened(opened, takes_from=0)
                return await _joined(stream, channel)

        return await call.staying().open(run, method=methods.MACHINE_PORT_OPEN.name)


async def _joined(stream: streams.Stream[ports.PortOpened], channel: Channel) -> ports.PortClosed:
    """Pass on both ways until the machine's side is over."""
    async with streams.together() as tasks:
        up = tasks.create_task(_up(stream, channel), name="port-up")
        await _down(stream, channel)
        end = await channel.finish()
        up.cancel()
    return ports.PortClosed.model_construct(**machine_link.members(end))


async def _up(stream: streams.AnyStream, channel: Channel) -> None:
    # How the channel ended is said where it is read.
    with contextlib.suppress(errors.ChannelBroken):
        async for offset, data in stream.parts():
            await channel.send(data)
            await stream.taken(offset + len(data))
        await channel.send_eof()


async def _down(stream: streams.AnyStream, channel: Channel) -> None:
    offset = 0
    async for frame in channel:
        if frame.kind == rpc.FrameKind.DATA:
            await stream.send(wire.FrameKind.DATA, offset, frame.data)
            offset += len(frame.data)
    await stream.send(wire.FrameKind.EOF, offset)
