"""`machine.file*`: files of any size, read and written on streams; the rest are calls.

A reading goes on where it broke off and only ever in the same file. An upload is any number of parts with their offsets, so
each may be sent twice; it shows at its place when it is committed, whole.
"""

import asyncio
from typing import Any, Final

from paddock.bus import channels
from paddock.contracts import errors, rpc
from paddock.contracts import files as asked
from paddock.contracts.api import base, files, methods
from paddock.contracts.api import streams as wire
from paddock.gateway import inbound, jsonrpc, machine_link, moments, streams

CALL_S: Final = 60.0
COMMIT_S: Final = 600.0
"""A commit flushes all of a file to a disk, and a digest reads all of one."""
QUICK_TRY_S: Final = 8.0
"""For what takes a machine no time: an answer that takes longer was lost, and its call id makes it safe to ask again."""
PART_S: Final = 40.0
PART_TRY_S: Final = 3.0
"""A part that takes longer was lost, or its answer; it is sent again, which does no harm."""


class Files:
    def __init__(self, link: machine_link.MachineLink) -> None:
        self._link = link

    def routes(self) -> tuple[jsonrpc.AnyRoute, ...]:
        return (
            jsonrpc.Route(methods.MACHINE_FILE_READ, self.read),
            jsonrpc.Route(methods.MACHINE_FILE_WRITE, self.write),
            jsonrpc.Route(methods.MACHINE_FILE_COMMIT, self.commit),
            jsonrpc.Route(methods.MACHINE_FILE_ABORT, self.abort),
            jsonrpc.Route(methods.MACHINE_FILE_STAT, self.stat),
            jsonrpc.Route(methods.MACHINE_FILE_LIST, self.list),
            jsonrpc.Route(methods.MACHINE_FILE_MKDIR, self.mkdir),
            jsonrpc.Route(methods.MACHINE_FILE_MOVE, self.move),
            jsonrpc.Route(methods.MACHINE_FILE_REMOVE, self.remove),
            jsonrpc.Route(methods.MACHINE_FILE_CHMOD, self.chmod),
            jsonrpc.Route(methods.MACHINE_FILE_FIND, self.find),
        )

    async def read(self, params: files.MachineFileRead, call: jsonrpc.Call) -> files.FileReading:
        reading = _Reading(self._link, params)
        return await call.staying().open(reading.run, method=methods.MACHINE_FILE_READ.name)

    async def write(self, params: files.MachineFileWrite, call: jsonrpc.Call) -> files.FileWriting:
        upload = _Upload(self._link, params)
        return await call.staying().open(upload.run, method=methods.MACHINE_FILE_WRITE.name)

    async def commit(self, params: files.MachineFileCommit, _call: jsonrpc.Call) -> files.FileInfo:
        return _info(await self._act(asked.COMMIT, params, timeout_s=COMMIT_S))

    async def abort(self, params: files.MachineFileAbort, _call: jsonrpc.Call) -> base.Done:
        await self._act(asked.ABORT, params, try_s=QUICK_TRY_S)
        return base.Done()

    async def stat(self, params: files.MachineFileStat, _call: jsonrpc.Call) -> files.FileInfo:
        if params.digest:
            return _info(await self._act(asked.STAT, params, timeout_s=COMMIT_S))
        return _info(await self._act(asked.STAT, params, try_s=QUICK_TRY_S))

    async def list(self, params: files.MachineFileList, _call: jsonrpc.Call) -> files.FilePage:
        found = await self._act(asked.LIST, params)
        return files.FilePage.model_construct(
            entries=[_info(one) for one in found.entries], is_last=found.is_last
        )

    async def mkdir(self, params: files.MachineFileMkdir, _call: jsonrpc.Call) -> files.FileInfo:
        return _info(await self._act(asked.MKDIR, params, try_s=QUICK_TRY_S))

    async def move(self, params: files.MachineFileMove, _call: jsonrpc.Call) -> files.FileInfo:
        return _info(await self._act(asked.MOVE, params, try_s=QUICK_TRY_S))

    async def remove(self, params: files.MachineFileRemove, _call: jsonrpc.Call) -> base.Done:
        await self._act(asked.REMOVE, params)
        return base.Done()

    async def chmod(self, params: files.MachineFileChmod, _call: jsonrpc.Call) -> files.FileInfo:
        return _info(await self._act(asked.CHMOD, params))

    async def find(self, params: files.MachineFileFind, _call: jsonrpc.Call) -> files.FilesFound:
        found = await self._act(asked.FIND, params)
        return files.FilesFound.model_construct(
            entries=[_info(one) for one in found.entries],
            is_complete=found.is_complete,
            unreadable=found.unreadable,
        )

    async def _act(
        self,
        method: "rpc.Method[Any, machine_link.ResultT]",
        params: Any,
        *,
        timeout_s: float = CALL_S,
        try_s: float | None = None,
    ) -> machine_link.ResultT:
        """Ask for what ours asks for: parameters of both sides have the same names."""
        wanted = method.params(**{name: getattr(params, name) for name in method.params.__struct_fields__})
        return await self._link.insist(
            params.machine_id,
            method,
            wanted,
            timeout_s=timeout_s,
            try_s=try_s,
            call_id=getattr(params, "call_id", None),
        )


class _Reading:
    """One file being read: which one it is, and where we are."""

    def __init__(self, link: machine_link.MachineLink, params: files.MachineFileRead) -> None:
        self._link, self._params = link, params
        self._next, self._version = params.offset, params.version
        self._size = 0

    async def run(self, stream: streams.Stream[files.FileReading]) -> files.FileRead:
        async def opened(answer: asked.Opened) -> None:
            # From here on it is this file or none.
            self._version, self._size = answer.info.version, answer.info.size
            reading = files.FileReading.model_construct(stream=stream.number, info=_info(answer.info))
            await stream.opened(reading)

        async def frame(one: channels.Frame) -> None:
            if one.kind != rpc.FrameKind.DATA:
                return
            if one.offset != self._next:
                raise errors.BadAnswer("cannot go on reading: what came is not what comes next")
            self._next += len(one.data)
            await stream.send(wire.FrameKind.DATA, one.offset, one.data)

        following = machine_link.Following(self._link, self._params.machine_id, asked.READ, self._go_on)
        end = await following.run(opened, frame)
        return files.FileRead.model_construct(**machine_link.members(end))

    def _go_on(self) -> asked.ReadParams:
        length, sent = self._params.length, self._next - self._params.offset
        if length is not None:
            # All of a file comes with its digest, and so does its rest when it is asked for as a rest.
            is_all = sent and not self._params.offset and length >= self._size
            length = None if is_all else length - sent
        return asked.ReadParams(
            path=self._params.path, offset=self._next, length=length, version=self._version
        )


class _Upload:
    """One upload from one stream: several parts under way, confirmed in order, sent again when no answer came."""

    def __init__(self, link: machine_link.MachineLink, params: files.MachineFileWrite) -> None:
        self._link, self._params = link, params
        self._slots = asyncio.Semaphore(asked.PARTS_AT_ONCE)
        self._under_way: asyncio.Queue[tuple[inbound.Part, asyncio.Task[bool]] | None] = asyncio.Queue()

    async def run(self, stream: streams.Stream[files.FileWriting]) -> files.FileWritten:
        received = await self._insist((0, memoryview(b"")), was_there=False)
        opened = files.FileWriting.model_construct(stream=stream.number, received=received)
        await stream.opened(opened, takes_from=received)
        async with streams.together() as tasks:
            tasks.create_task(self._send(stream, tasks), name="upload-send")
            received = await self._confirm(stream, received)
        return files.FileWritten.model_construct(received=received)

    async def _send(self, stream: streams.AnyStream, tasks: asyncio.TaskGroup) -> None:
        async for part in stream.parts():
            await self._slots.acquire()
            self._under_way.put_nowait((part, tasks.create_task(self._once(part), name="upload-part")))
        self._under_way.put_nowait(None)

    async def _confirm(self, stream: streams.AnyStream, received: int) -> int:
        """Wait for one after the other; how much was received in all."""
        while (item := await self._under_way.get()) is not None:
            part, sent = item
            if not await sent:
                # All before it was received, so by now it is no gap.
                await self._insist(part, was_there=True)
            received = part[0] + len(part[1])
            await stream.taken(received)
            self._slots.release()
        return received

    async def _once(self, part: inbound.Part) -> bool:
        """Whether it is known to be received; one that overtook a lost one is not."""
        try:
            await self._link.ask(
                self._params.machine_id, asked.WRITE, self._wanted(part), timeout_s=PART_TRY_S, blob=part[1]
            )
        except (*machine_link.AWAY, errors.BadOffset):
            return False
        return True

    async def _insist(self, part: inbound.Part, *, was_there: bool) -> int:
        written = await self._link.insist(
            self._params.machine_id,
            asked.WRITE,
            self._wanted(part),
            timeout_s=PART_S,
            try_s=PART_TRY_S,
            blob=part[1],
            was_there=was_there,
        )
        return written.received

    def _wanted(self, part: inbound.Part) -> asked.WriteParams:
        return asked.WriteParams(
            path=self._params.path, upload=self._params.upload, offset=part[0], parents=self._params.parents
        )


def _info(one: asked.FileInfo) -> files.FileInfo:
    shown = machine_link.members(one)
    shown["modified_at"] = moments.text(shown.pop("modified_at_ms"))
    return files.FileInfo.model_construct(**shown)
