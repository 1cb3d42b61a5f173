"""Reading one file of a machine, of any size, over cut links: all of it is of the file as it was when it was opened."""

import asyncio
from typing import Final, Self

import pydantic

from paddock.client import patience, streams, transport
from paddock.contracts import errors
from paddock.contracts.api import files as api
from paddock.contracts.api import methods

SILENT_S = 60.0
"""Without a byte from a file that is being read, before the link is given up."""
DIGEST_BYTES_PER_S: Final = 50_000_000
"""A reading that goes on far in a file has the part before digested first; no disk of a machine is slower for long."""


class Reading:
    """`async with files.open(path) as reading: async for chunk in reading: …`. One reader at a time.

    `info` is the file as it was opened, `offset` the next byte, `end` what the machine said at the end: the size, and the
    digest of the whole file when the reading went to its end.
    """

    def __init__(
        self,
        link: transport.Transport,
        asked: api.MachineFileRead,
        *,
        on_link: patience.OnLink | None = None,
    ) -> None:
        self.offset = asked.offset
        self.end: api.FileRead | None = None
        self._asked, self._link = asked, link
        self._patience = patience.Patience(on_link=on_link)
        self._stream: streams.StreamLink[api.FileReading] | None = None
        self._info: api.FileInfo | None = None

    @property
    def info(self) -> api.FileInfo:
        """The file as it was opened."""
        if self._info is None:
            raise RuntimeError("a Reading works inside `async with` only")
        return self._info

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the link; iterated again, the reading goes on where it stopped if the file is still the same."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes.

        Raises:
            errors.Conflict: The link was cut, and the file is another by now.
            errors.Fault: The machine refused, or could not be reached for too long.

        Cancellation: safe; the bytes are then given by the next call.
        """
        while self.end is None:
            try:
                await self._open()
                if self._stream is not None and (data := await self._next(self._stream)) is not None:
                    return data
            except errors.Fault as fault:
                await self.aclose()
                await self._patience.after(fault)
        raise StopAsyncIteration

    async def _open(self) -> None:
        while self._stream is None and self.end is None:
            try:
                self._stream = await streams.opened(self._link, methods.MACHINE_FILE_READ, self._params())
            except errors.Fault as fault:
                await self._patience.after(fault)
            else:
                self._info = self._info or self._stream.opened.info
                self._patience.joined()

    def _params(self) -> api.MachineFileRead:
        """What is left of what was asked for, of the same file."""
        if self._info is None:
            return self._asked
        length = self._asked.length
        return self._asked.model_copy(
            update={
                "offset": self.offset,
                "length": None if length is None else length - (self.offset - self._asked.offset),
                "version": self._info.version,
            }
        )

    async def _next(self, stream: streams.StreamLink[api.FileReading]) -> bytes | None:
        silent_s = SILENT_S + self.offset / DIGEST_BYTES_PER_S
        try:
            async with asyncio.timeout(silent_s):
                frame = await stream.receive()
        except TimeoutError as error:
            raise errors.NoAnswer(
                f"cannot go on reading {self._asked.path}: the machine said nothing for {silent_s:.0f} s"
            ) from error
        if frame is None:
            self.end = _end(stream.result)
            await self.aclose()
            return None
        self._patience.worked()
        if frame.offset > self.offset:
            raise errors.ChannelBroken(f"cannot go on reading {self._asked.path}: bytes are missing")
        data = bytes(frame.data[self.offset - frame.offset :])
        self.offset += len(data)
        return data or None


def _end(result: dict[str, object]) -> api.FileRead:
    try:
        return api.FileRead.model_validate(result)
    except pydantic.ValidationError as error:
        raise errors.BadAnswer(
            "cannot read how the reading ended: the gateway speaks another version"
        ) from error
