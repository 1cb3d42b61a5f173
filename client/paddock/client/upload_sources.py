"""What can be uploaded beside local files: bytes that are here, and bytes that come once.

A source gives bytes at an offset, goes back as far as the machine may ask for, and digests each byte once.
"""

import asyncio
import collections
import hashlib
from collections.abc import AsyncIterator
from typing import Protocol

from paddock.client import local_files
from paddock.contracts import errors
from paddock.contracts.api import streams as frames


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Source(Protocol):
    """What is uploaded. `digested` is how far its digest is."""

    size_bytes: int
    digested: int

    async def at(self, offset: int) -> bytes | memoryview: ...
    async def digest_to(self, offset: int) -> None: ...
    async def check_unchanged(self, size_bytes: int) -> None: ...
    async def sha256(self) -> str: ...


class Memory:
    """Bytes that are here already."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size_bytes = self.digested = len(content)

    async def at(self, offset: int) -> memoryview:
        return memoryview(self._content)[offset : offset + local_files.BLOCK_BYTES]

    async def digest_to(self, offset: int) -> None:
        """All of it is digested at the end."""

    async def check_unchanged(self, size_bytes: int) -> None:
        """Nobody else can change it."""

    async def sha256(self) -> str:
        return await asyncio.to_thread(sha256_of, self._content)


class Pieces:
    """Bytes that come once, in order. What may have to be sent again is kept: a window of it."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self.size_bytes = 0
        self.digested = 0
        self._pieces = pieces
        self._digest = hashlib.sha256()
        self._kept: collections.deque[bytes] = collections.deque()
        self._kept_from = 0

    async def at(self, offset: int) -> memoryview:
        """Some bytes from `offset` on; those a window before it are never asked for again."""
        self._forget(offset - frames.WINDOW_BYTES - frames.FRAME_BYTES_MAX)
        if offset < self._kept_from or offset > self.digested:
            raise local_files.fault(
                errors.Conflict,
                "cannot go on with this upload: the machine has another part of it than was sent",
            )
        begin = self._kept_from
        for piece in self._kept:
            if offset < begin + len(piece):
                return memoryview(piece)[offset - begin :]
            begin += len(piece)
        return await self._next()

    async def digest_to(self, offset: int) -> None:
        raise local_files.fault(
            errors.Conflict, f"cannot go on with this upload: {offset} bytes of it came from elsewhere"
        )

    async def check_unchanged(self, size_bytes: int) -> None:
        """It was what it was."""

    async def sha256(self) -> str:
        return self._digest.hexdigest()

    async def _next(self) -> memoryview:
        async for piece in self._pieces:
            if piece:
                self._digest.update(piece)
                self._kept.append(bytes(piece))
                self.digested += len(piece)
                return memoryview(self._kept[-1])
        return memoryview(b"")

    def _forget(self, before: int) -> None:
        while self._kept and self._kept_from + len(self._kept[0]) <= before:
            self._kept_from += len(self._kept.popleft())
