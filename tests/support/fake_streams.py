"""Streams of the fake gateway: one on a WebSocket, for output of commands and bytes of files."""

import asyncio
import json
from typing import Any

import aiohttp
from aiohttp import web

from paddock.contracts import errors
from paddock.contracts.api import base, executions, files, methods, streams
from tests.support import fake_tools

STREAM = 1
REPLAY_BYTES = 1024 * 1024


class Stream:
    """Serves one streaming call on one socket until its end."""

    def __init__(
        self, socket: web.WebSocketResponse, tools: fake_tools.FakeTools, frame_bytes: int, request_id: Any
    ) -> None:
        self._socket, self._tools, self._frame_bytes = socket, tools, frame_bytes
        self._request_id = request_id

    async def serve(self, method: str, params: Any) -> None:
        try:
            match method:
                case methods.MACHINE_EXEC_ATTACH.name:
                    await self._attach(params)
                case methods.MACHINE_FILE_READ.name:
                    await self._read(params)
                case methods.MACHINE_FILE_WRITE.name:
                    await self._write(params)
                case _:
                    raise AssertionError(f"no stream for {method} here")
        except errors.Fault as fault:
            await self.fail(fault)

    async def fail(self, fault: errors.Fault) -> None:
        """Say why it could not go on, or not begin."""
        data = {"kind": fault.kind, "retryable": fault.retryable, **fault.data}
        body = {"code": fault.code, "message": fault.message, "data": data}
        if self._request_id is not None:
            error = {"jsonrpc": "2.0", "id": self._request_id, "error": body}
            await self._socket.send_str(json.dumps(error))
        else:
            await self._notify(streams.ENDED_NOTIFICATION, {"stream": STREAM, "error": body})

    async def _begin(self, opened: base.Result) -> None:
        members = opened.model_dump_json(by_alias=True)
        await self._socket.send_str(f'{{"jsonrpc":"2.0","id":{self._request_id},"result":{members}}}')
        self._request_id = None

    async def _end(self, result: base.Result) -> None:
        members = json.loads(result.model_dump_json(by_alias=True))
        await self._notify(streams.ENDED_NOTIFICATION, {"stream": STREAM, "result": members})

    async def _notify(self, method: str, params: dict[str, Any]) -> None:
        await self._socket.send_str(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}))

    async def _send(self, kind: streams.FrameKind, offset: int, data: bytes | memoryview) -> None:
        await self._socket.send_bytes(streams.frame(kind, STREAM, offset, data))

    async def _attach(self, asked: executions.MachineExecAttach) -> None:
        execution = self._tools.execution(asked.id)
        given = {"stdout": asked.stdout_offset, "stderr": asked.stderr_offset}
        offsets = {
            name: _first_offset(execution, name) if offset is None else offset
            for name, offset in given.items()
        }
        for name, offset in offsets.items():
            execution.check_kept(name, offset)
        await self._begin(
            executions.ExecAttached(
                stream=STREAM,
                execution=execution.shown(),
                stdout_offset=offsets["stdout"],
                stderr_offset=offsets["stderr"],
            )
        )
        while not await self._send_new(execution, offsets):
            await execution.until(lambda: _is_news(execution, offsets), within_s=60)
        await self._end(execution.shown())

    async def _send_new(self, execution: fake_tools.FakeExecution, offsets: dict[str, int]) -> bool:
        """Send what was not sent; whether that was the end of it."""
        is_over = execution.end_of is not None
        for name, kind in (("stdout", streams.FrameKind.DATA), ("stderr", streams.FrameKind.STDERR)):
            while data := execution.written[name][offsets[name] : offsets[name] + self._frame_bytes]:
                await self._send(kind, offsets[name], bytes(data))
                offsets[name] += len(data)
        return is_over

    async def _read(self, asked: files.MachineFileRead) -> None:
        info, content = self._tools.content(asked)
        await self._begin(files.FileReading(stream=STREAM, info=info))
        end = info.size if asked.length is None else min(info.size, asked.offset + asked.length)
        for offset in range(asked.offset, end, self._frame_bytes):
            part = memoryview(content)[offset : min(end, offset + self._frame_bytes)]
            await self._send(streams.FrameKind.DATA, offset, part)
        digest = self._tools.digest(asked.path, content) if end == info.size else ""
        await self._end(files.FileRead(size=info.size, sha256=digest))

    async def _write(self, asked: files.MachineFileWrite) -> None:
        upload = self._tools.upload(asked)
        await self._begin(files.FileWriting(stream=STREAM, received=len(upload)))
        async for message in self._socket:
            assert message.type is aiohttp.WSMsgType.BINARY
            kind, _, offset, data = streams.split_frame(message.data)
            if kind is streams.FrameKind.EOF:
                await self._end(files.FileWritten(received=len(upload)))
                return
            self._tools.bytes_offered += len(data)
            if self._tools.takes_parts == 0:
                self._tools.is_stalled.set()
                continue
            self._tools.take_part(upload, offset, data)
            await asyncio.sleep(0)
            await self._notify(streams.TAKEN_NOTIFICATION, {"stream": STREAM, "offset": len(upload)})


def _is_news(execution: fake_tools.FakeExecution, offsets: dict[str, int]) -> bool:
    return execution.end_of is not None or any(
        len(execution.written[name]) > offset for name, offset in offsets.items()
    )


def _first_offset(execution: fake_tools.FakeExecution, name: str) -> int:
    if execution.asked.pty:
        return max(execution.kept_from[name], len(execution.written[name]) - REPLAY_BYTES)
    return execution.kept_from[name]
