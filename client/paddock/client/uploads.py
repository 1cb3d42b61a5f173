"""Putting a file into a machine: parts over a stream, each where the machine says it is, then one commit.

The machine keeps what it has for a day, so a cut link, a restarted gateway and a stopped program only cost what was under
way. Nothing shows at the path before the commit, which carries a call id and acts once however often it is asked for.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import pathlib
from typing import Final

import pydantic

from paddock.client import local_files, machines, patience, streams, transport, upload_sources
from paddock.contracts import errors
from paddock.contracts.api import files as api
from paddock.contracts.api import methods
from paddock.contracts.api import streams as frames

STALLED_S = 60.0
"""For the machine to take one part, before the link is given up."""
COMMIT_BYTES_PER_S: Final = 20_000_000
"""Flushed and, after a restart of the daemon, digested; no disk of a machine is slower for long."""
ABORT_S = 5.0
Progress = local_files.Progress


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where to, and under which name."""

    machine_id: str
    path: str
    upload: str
    is_named_here: bool = True
    mode: int | None = None
    expected_sha256: str | None = None
    parents: bool = False

    def writing(self) -> api.MachineFileWrite:
        return api.MachineFileWrite(
            machine_id=self.machine_id, path=self.path, upload=self.upload, parents=self.parents
        )

    def commit(self, *, size: int, sha256: str, call_id: str) -> api.MachineFileCommit:
        return api.MachineFileCommit(
            machine_id=self.machine_id,
            path=self.path,
            upload=self.upload,
            size=size,
            sha256=sha256,
            mode=self.mode,
            expected_sha256=self.expected_sha256,
            call_id=call_id,
        )


async def of_file(
    link: transport.Transport,
    plan: Plan,
    path: pathlib.Path,
    *,
    progress: Progress | None = None,
    on_link: patience.OnLink | None = None,
) -> api.FileInfo:
    """Upload a local file; see `Files.upload`."""
    source = await asyncio.to_thread(local_files.open_source, path)
    try:
        if plan.is_named_here:
            plan = dataclasses.replace(plan, upload=_name(plan, source))
        return await run(link, plan, source, progress=progress, on_link=on_link)
    finally:
        source.close()


async def run(
    link: transport.Transport,
    plan: Plan,
    source: upload_sources.Source,
    *,
    progress: Progress | None = None,
    on_link: patience.OnLink | None = None,
) -> api.FileInfo:
    """Upload what a source holds, and put it in place; see `Files.upload`."""
    upload = _Upload(link, plan, source, progress, on_link)
    try:
        size_bytes = await upload.send()
        await source.check_unchanged(size_bytes)
    except (errors.Conflict, errors.NoSuchPath) as fault:
        if "isLocal" in fault.data:
            await upload.abort()  # what the machine has of it is of no use to anybody
        raise
    try:
        return await upload.commit(size_bytes)
    except (errors.Conflict, errors.NotFound) as fault:
        if not upload.was_resumed or "sha256" in fault.data:
            raise
    # What the machine had of it before was not of this file, or is gone: then it begins anew.
    return await upload.commit(await upload.send())


class _Upload:
    def __init__(
        self,
        link: transport.Transport,
        plan: Plan,
        source: upload_sources.Source,
        progress: Progress | None,
        on_link: patience.OnLink | None,
    ) -> None:
        self._link, self._plan, self._source, self._progress = link, plan, source, progress
        self._patience = patience.Patience(on_link=on_link)
        self._sent = 0
        self.was_resumed = False
        """The machine had some of it that was not sent by us."""

    async def send(self) -> int:
        """Send until the machine has all of it; its size."""
        while True:
            try:
                async with await self._open() as stream:
                    received = stream.opened.received
                    self.was_resumed = self.was_resumed or received > self._sent
                    if received <= self._source.digested:
                        return await self._send_on(stream, received)
                # Without a link: that may take long, and nobody would answer the gateway's pings.
                await self._source.digest_to(received)
                if self._source.digested < received:
                    raise local_files.fault(
                        errors.Conflict,
                        f"cannot go on with this upload: the machine has more of it, {received} bytes, than there is",
                    )
            except errors.BadOffset:
                # The machine lost some of it; what it has now is asked at the next opening.
                await self._patience.after(
                    errors.ChannelBroken("cannot go on: the machine has less than was sent")
                )
            except errors.Fault as fault:
                await self._patience.after(fault)

    async def commit(self, size_bytes: int) -> api.FileInfo:
        """Put it in place."""
        asked = self._plan.commit(
            size=size_bytes, sha256=await self._source.sha256(), call_id=machines.new_token()
        )
        takes_s = size_bytes / COMMIT_BYTES_PER_S

        async def ask() -> api.FileInfo:
            return await self._link.call(methods.MACHINE_FILE_COMMIT, asked, takes_s=takes_s, is_named=True)

        return await patience.until_done(self._patience, ask)

    async def abort(self) -> None:
        """Give it up, if that can be said in a moment; the machine forgets it in a day anyhow."""
        asked = api.MachineFileAbort(machine_id=self._plan.machine_id, upload=self._plan.upload)
        with contextlib.suppress(errors.Fault, TimeoutError):
            async with asyncio.timeout(ABORT_S):
                await self._link.call(methods.MACHINE_FILE_ABORT, asked, is_named=True)

    async def _open(self) -> streams.StreamLink[api.FileWriting]:
        stream = await streams.opened(self._link, methods.MACHINE_FILE_WRITE, self._plan.writing())
        self._patience.joined()
        return stream

    async def _send_on(self, stream: streams.StreamLink[api.FileWriting], received: int) -> int:
        stream.sent = stream.taken = received
        self._tell(received)
        while data := await self._source.at(stream.sent):
            for begin in range(0, len(data), frames.FRAME_BYTES_MAX):
                await self._send_part(stream, memoryview(data)[begin : begin + frames.FRAME_BYTES_MAX])
        written = await self._finish(stream)
        if written.received != stream.sent:
            raise errors.ChannelBroken(
                f"cannot finish this upload: the machine has {written.received} of {stream.sent} bytes"
            )
        self._tell(stream.sent)
        return stream.sent

    async def _send_part(self, stream: streams.StreamLink[api.FileWriting], part: memoryview) -> None:
        taken = stream.taken
        self._sent = max(self._sent, stream.sent + len(part))
        try:
            async with asyncio.timeout(STALLED_S):
                await stream.send(part)
        except TimeoutError as error:
            raise self._stalled() from error
        if stream.taken > taken:
            self._patience.worked()
            self._tell(stream.taken)

    async def _finish(self, stream: streams.StreamLink[api.FileWriting]) -> api.FileWritten:
        try:
            async with asyncio.timeout(STALLED_S):
                await stream.send_eof()
                while await stream.receive() is not None:
                    pass
        except TimeoutError as error:
            raise self._stalled() from error
        try:
            return api.FileWritten.model_validate(stream.result)
        except pydantic.ValidationError as error:
            raise errors.BadAnswer(
                "cannot read how the upload ended: the gateway speaks another version"
            ) from error

    def _stalled(self) -> errors.Fault:
        return errors.NoAnswer(
            f"cannot go on with {self._plan.path}: the machine took nothing for {STALLED_S:g} s"
        )

    def _tell(self, done_bytes: int) -> None:
        if self._progress is not None:
            self._progress(done_bytes, self._source.size_bytes)


def _name(plan: Plan, source: local_files.Source) -> str:
    """The same for the same file on its way to the same place, so that it is found again."""
    text = f"{plan.machine_id}\0{plan.path}\0{source.identity}"
    return f"copy-{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:32]}"
