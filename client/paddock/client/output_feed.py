"""What a command writes, as it writes it, over cut links, restarted gateways and restarted daemons.

Every feed has a link of its own, so who reads only stdout need not read stderr: what is not wanted is skipped, not kept. A
feed that was cut attaches again at its offsets: no byte is missing, none comes twice, and it ends where the output ends.
Links that nobody reads for half a minute are cut by the gateway; the next piece is then asked for anew.
"""

import dataclasses
from collections.abc import Callable
from typing import Final, Literal, Self

import pydantic

from paddock.client import patience, streams, transport
from paddock.contracts import errors
from paddock.contracts.api import executions as api
from paddock.contracts.api import methods
from paddock.contracts.api import streams as frames

StreamName = Literal["stdout", "stderr"]
SKIPPED_BYTES: Final = 256 * 1024
"""More than this of a stream nobody wants is not passed over but skipped, by attaching behind it."""
_NAMES: Final[dict[frames.FrameKind, StreamName]] = {
    frames.FrameKind.DATA: "stdout",
    frames.FrameKind.STDERR: "stderr",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes and their place in all the command wrote to that stream."""

    stream: StreamName
    offset: int
    data: bytes


class OutputFeed:
    """Stdout and stderr as they arrive: `async for piece in feed`. One reader at a time; close it when you leave early.

    `execution` is the command as it was last seen; at the end of the feed, how it ended. `offsets` are of the next bytes.
    """

    def __init__(
        self,
        link: transport.Transport,
        machine_id: str,
        exec_id: str,
        *,
        stdout_offset: int | None = None,
        stderr_offset: int | None = None,
        wanted: frozenset[StreamName] = frozenset(("stdout", "stderr")),
        has_worked: bool = False,
        on_link: patience.OnLink | None = None,
        on_seen: Callable[[api.Execution], None] | None = None,
    ) -> None:
        with transport.checked():
            self._asked = api.MachineExecAttach(
                machine_id=machine_id, id=exec_id, stdout_offset=stdout_offset, stderr_offset=stderr_offset
            )
        self.offsets: dict[StreamName, int | None] = {"stdout": stdout_offset, "stderr": stderr_offset}
        self.execution: api.Execution | None = None
        self._link, self._wanted, self._on_seen = link, wanted, on_seen
        self._patience = patience.Patience(has_worked=has_worked, on_link=on_link)
        self._stream: streams.StreamLink[api.ExecAttached] | None = None
        self._is_over = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Attach now, so that an unknown command is a fault here."""
        while self._stream is None and not self._is_over:
            try:
                self._stream = await self._attached()
            except errors.Fault as fault:
                await self._patience.after(fault)
            else:
                self._patience.joined()

    async def aclose(self) -> None:
        """Leave; the command goes on. Iterated again, the feed goes on where it stopped."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        """The next piece.

        Raises:
            errors.NotFound: There is no such command.
            errors.OutputLimit: What comes next is no longer kept; `data["firstOffset"]` is the first byte that is.
            errors.Fault: The gateway refused, or could not be reached for too long.

        Cancellation: safe; the piece is then given by the next call.
        """
        while not self._is_over:
            await self.open()
            try:
                if self._stream is not None and (piece := await self._next(self._stream)) is not None:
                    return piece
            except errors.OutputLimit:
                # Of which stream it does not say. If it is of one that is wanted, attaching anew says so.
                await self._go_on_after(errors.ChannelBroken("cannot go on: some output is no longer kept"))
            except errors.Fault as fault:
                await self._go_on_after(fault)
        raise StopAsyncIteration

    async def _go_on_after(self, fault: errors.Fault) -> None:
        await self.aclose()
        await self._patience.after(fault)

    async def _next(self, stream: streams.StreamLink[api.ExecAttached]) -> Piece | None:
        """What the next frame holds for us; None for nothing, and at the end."""
        frame = await stream.receive()
        self._patience.worked()
        if frame is None:
            self._saw(_execution(stream.result))
            self._is_over = True
            await self.aclose()
            return None
        name = _NAMES.get(frame.kind)
        if name is None or name not in self._wanted:
            return None
        return self._fitting(name, frame)

    def _saw(self, execution: api.Execution) -> None:
        self.execution = execution
        if self._on_seen is not None:
            self._on_seen(execution)

    def _fitting(self, name: StreamName, frame: streams.Frame) -> Piece | None:
        """The part of a frame that was not given yet."""
        offset = self.offsets[name] or 0
        if frame.offset > offset:
            raise errors.ChannelBroken(f"cannot go on with {name}: bytes are missing before {frame.offset}")
        data = bytes(frame.data[offset - frame.offset :])
        self.offsets[name] = offset + len(data)
        return Piece(name, offset, data) if data else None

    async def _attached(self) -> streams.StreamLink[api.ExecAttached]:
        stream = await streams.opened(self._link, methods.MACHINE_EXEC_ATTACH, self._attach_params())
        seen = stream.opened.execution
        behind: dict[StreamName, int] = {
            "stdout": seen.stdout_bytes - stream.opened.stdout_offset,
            "stderr": seen.stderr_bytes - stream.opened.stderr_offset,
        }
        if any(behind[name] > SKIPPED_BYTES for name in behind.keys() - self._wanted):
            await stream.aclose()
            beyond: dict[StreamName, int] = {"stdout": seen.stdout_bytes, "stderr": seen.stderr_bytes}
            stream = await streams.opened(
                self._link, methods.MACHINE_EXEC_ATTACH, self._attach_params(beyond)
            )
        self._saw(stream.opened.execution)
        self.offsets["stdout"] = stream.opened.stdout_offset
        self.offsets["stderr"] = stream.opened.stderr_offset
        return stream

    def _attach_params(self, beyond: dict[StreamName, int] | None = None) -> api.MachineExecAttach:
        """Where to attach: at our offsets, and for what nobody wants wherever it begins or at `beyond`."""
        unwanted = beyond or {}
        at = {
            name: offset if name in self._wanted else unwanted.get(name)
            for name, offset in self.offsets.items()
        }
        return self._asked.model_copy(update={"stdout_offset": at["stdout"], "stderr_offset": at["stderr"]})


class Output:
    """One stream of a command: `async for chunk in process.stdout`. Left and iterated again, it goes on where it was."""

    def __init__(self, feed: OutputFeed) -> None:
        self._feed = feed

    async def __aenter__(self) -> Self:
        await self._feed.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes, as soon as there are any; see `OutputFeed.__anext__`. Cancellation: safe, nothing is lost."""
        return (await anext(self._feed)).data

    async def read(self) -> bytes:
        """Everything up to the end of the command, in memory."""
        return b"".join([chunk async for chunk in self])

    async def aclose(self) -> None:
        """Let go of the link; the command goes on."""
        await self._feed.aclose()


def _execution(result: dict[str, object]) -> api.Execution:
    try:
        return api.Execution.model_validate(result)
    except pydantic.ValidationError as error:
        raise errors.BadAnswer(
            "cannot read how the command ended: the gateway speaks another version",
            detail=transport.complaint(error),
        ) from error
