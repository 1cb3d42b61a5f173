"""Moving files to and from a daemon over the bus, as a service does: 512 KiB under way."""

import asyncio
import hashlib
import pathlib
import sys
from collections.abc import AsyncGenerator, Callable

from paddock.bus import caller, clock, rights, safeclient
from paddock.contracts import files, subjects
from tests.daemon import machine as machines

CALL = subjects.rpc_call(machines.SANDBOX)
MIB = 1024 * 1024
_TIMEOUT_S = 60.0


class Content:
    """So many bytes that repeat late: made once, never all in memory."""

    def __init__(self, size: int, seed: bytes = b"paddock") -> None:
        self.size = size
        block = hashlib.shake_256(seed).digest(MIB + 17)
        self._block = memoryview(block * 2)
        self._period = len(block)

    def part(self, offset: int, length: int = files.PART_BYTES) -> memoryview:
        length = min(length, self.size - offset)
        begin = offset % self._period
        return self._block[begin : begin + length]

    def sha256(self) -> str:
        hashed = hashlib.sha256()
        for offset in range(0, self.size, files.PART_BYTES):
            hashed.update(self.part(offset))
        return hashed.hexdigest()


async def write(asking: caller.Caller, params: files.WriteParams, part: memoryview | bytes = b"") -> int:
    result = await asking.call(CALL, files.WRITE, params, timeout_s=_TIMEOUT_S, blob=bytes(part))
    return result.received


async def send(
    asking: caller.Caller, path: str, content: Content, upload: str, *, to: int | None = None
) -> None:
    """Send the parts that are missing, up to `to`."""
    offset = await write(asking, files.WriteParams(path=path, upload=upload))
    end = content.size if to is None else to

    async def sending() -> None:
        nonlocal offset
        while offset < end:
            at, part = offset, content.part(offset, min(files.PART_BYTES, end - offset))
            offset += len(part)
            await write(asking, files.WriteParams(path=path, upload=upload, offset=at), part)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(files.PARTS_AT_ONCE):
            tasks.create_task(sending())


async def commit(
    asking: caller.Caller, path: str, content: Content, upload: str, call_id: str = ""
) -> files.FileInfo:
    params = files.CommitParams(path=path, upload=upload, size=content.size, sha256=content.sha256())
    return await asking.call(CALL, files.COMMIT, params, timeout_s=_TIMEOUT_S, call_id=call_id)


async def upload(asking: caller.Caller, path: str, content: Content, upload: str) -> files.FileInfo:
    await send(asking, path, content, upload)
    return await commit(asking, path, content, upload)


async def frames(asking: caller.Caller, params: files.ReadParams) -> AsyncGenerator[memoryview, None]:
    async with asking.open(CALL, files.READ, params, timeout_s=_TIMEOUT_S) as channel:
        async for frame in channel:
            yield memoryview(frame.data)


async def download(
    asking: caller.Caller,
    path: str,
    expected: Content,
    *,
    on_frame: Callable[[int], object] = lambda _: None,
) -> files.ReadEnd:
    """Read all of a file; what comes is what was expected, byte for byte."""
    got = 0
    params = files.ReadParams(path=path)
    async with asking.open(CALL, files.READ, params, timeout_s=_TIMEOUT_S) as channel:
        async for frame in channel:
            assert frame.offset == got
            assert frame.data == expected.part(got, len(frame.data))
            got += len(frame.data)
            on_frame(got)
    assert got == expected.size
    return channel.end


def rss_mib(pid: int) -> float:
    """What a process holds in memory."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


async def _move_when_told(url: str, creds: str, way: str) -> None:
    """For a process of its own: each line on stdin has a file moved, which is told on stdout."""
    content = Content(192 * MIB)
    prefix = rights.inbox_prefix("prober")
    nc = await safeclient.connect(url, name="moving", creds=_text(creds), inbox_prefix=prefix)
    async with caller.Caller(nc, caller_id="moving-x1", clock=clock.SystemClock()) as asking:
        await upload(asking, "~/moved", content, "u0")
        print("ready", flush=True)
        number = 0
        while await asyncio.to_thread(sys.stdin.readline):
            number += 1
            print("begun", flush=True)
            if way == "up":
                await upload(asking, "~/moved", content, f"u{number}")
            else:
                await download(asking, "~/moved", content)
            print("done", flush=True)
    await nc.close()


def _text(path: str) -> str:
    return pathlib.Path(path).read_text()


if __name__ == "__main__":
    asyncio.run(_move_when_told(*sys.argv[1:]))
