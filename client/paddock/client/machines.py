"""Machines: asking for one, seeing how it is, running commands and moving files in it.

What acts in a machine carries a call id, and a new machine a client token, made here unless given: a call whose
answer was lost is asked again and acts once.
"""

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence

from paddock.client import transport
from paddock.contracts import daemon, errors, phases
from paddock.contracts.api import base, machines, methods

READ_PART_BYTES = 256 * 1024
"""Of a file in one answer: as base64 in its envelope it is still one message of the bus."""
WRITE_MAX_BYTES = machines.FILE_MAX_BYTES // 4 * 3
"""Of a file that is no text, which goes as base64."""


def new_token() -> str:
    """A name for one action that nobody else has: 128 random bits."""
    return secrets.token_hex(16)


def words(command: Sequence[str]) -> list[str]:
    """A command as a list.

    Raises:
        errors.InvalidParams: It is one text, which no shell would take apart.
    """
    if isinstance(command, str | bytes):
        raise errors.InvalidParams(
            'cannot run a command that is one text: give a list, such as ["ls", "-la"]; there is no shell'
        )
    return list(command)


class Machines:
    def __init__(self, link: transport.Transport) -> None:
        self._link = link

    async def create(
        self,
        project_id: str,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        client_token: str | None = None,
        wait_s: float = 0.0,
    ) -> machines.Machine:
        """Ask for a machine; it exists when this returns and becomes active on its own (see `watch.settle`).

        Args:
            project_id: Whose machine.
            name: For people; the id when None.
            labels: For finding it.
            env: The machine's own variables.
            client_token: The same token and request answer the same machine; a new one when None.
            wait_s: Answer later, when it is active or failed, but not later than this.

        Raises:
            errors.Conflict: The token was used for another request.
        """
        with transport.checked():
            asked = machines.MachineCreate(
                project_id=project_id,
                name=name,
                client_token=client_token or new_token(),
                labels=dict(labels or {}),
                env=dict(env or {}),
                wait_s=wait_s,
            )
        return await self._link.call(methods.MACHINE_CREATE, asked, takes_s=wait_s, is_named=True)

    async def get(self, machine_id: str) -> machines.Machine:
        with transport.checked():
            asked = machines.MachineGet(machine_id=machine_id)
        return await self._link.call(methods.MACHINE_GET, asked)

    async def page(
        self,
        *,
        project_id: str | None = None,
        among: Sequence[phases.Phase] | None = None,
        cursor: str | None = None,
        limit: int = base.PAGE_SIZE,
    ) -> machines.MachinePage:
        """Some machines, newest first; deleted ones only when `among` names that phase."""
        with transport.checked():
            asked = machines.MachineList(
                project_id=project_id,
                phases=list(among) if among else None,
                cursor=cursor,
                limit=limit,
            )
        return await self._link.call(methods.MACHINE_LIST, asked)

    async def each(
        self, *, project_id: str | None = None, among: Sequence[phases.Phase] | None = None
    ) -> AsyncIterator[machines.Machine]:
        """All of them, page after page."""
        cursor: str | None = None
        while True:
            page = await self.page(
                project_id=project_id, among=among, cursor=cursor, limit=base.PAGE_SIZE_MAX
            )
            for machine in page.machines:
                yield machine
            cursor = page.next_cursor
            if cursor is None:
                return

    async def delete(self, machine_id: str, *, wait_s: float = 0.0) -> machines.Machine:
        """Delete a machine, from every phase; asked again, it answers the same."""
        with transport.checked():
            asked = machines.MachineDelete(machine_id=machine_id, wait_s=wait_s)
        return await self._link.call(methods.MACHINE_DELETE, asked, takes_s=wait_s)

    async def retry(self, machine_id: str, *, wait_s: float = 0.0) -> machines.Machine:
        """Start a failed machine anew, in the same HOME.

        Raises:
            errors.WrongPhase: It has not failed.
        """
        with transport.checked():
            asked = machines.MachineRetry(machine_id=machine_id, wait_s=wait_s)
        return await self._link.call(methods.MACHINE_RETRY, asked, takes_s=wait_s)

    async def history(self, machine_id: str) -> machines.History:
        """Every phase it entered, every stage run and every sandbox, oldest first."""
        with transport.checked():
            asked = machines.MachineHistory(machine_id=machine_id)
        return await self._link.call(methods.MACHINE_HISTORY, asked)

    async def logs(self, machine_id: str, *, tail_bytes: int = machines.LOG_TAIL_BYTES) -> machines.Logs:
        """The end of the boot log of its newest sandbox; before it is active, too."""
        with transport.checked():
            asked = machines.MachineLogs(machine_id=machine_id, tail_bytes=tail_bytes)
        return await self._link.call(methods.MACHINE_LOGS, asked)

    async def exec(
        self,
        machine_id: str,
        command: Sequence[str],
        *,
        cwd: str = "~",
        env: Mapping[str, str] | None = None,
        timeout_s: float = daemon.EXEC_TIMEOUT_S,
        stdin: str = "",
        output_limit_bytes: int = daemon.OUTPUT_LIMIT_BYTES,
        call_id: str | None = None,
    ) -> machines.ExecResult:
        """Run one command in an active machine and wait for its end; no shell, and an exit code is a result.

        Args:
            machine_id: Where.
            command: The binary and its arguments.
            cwd: The working directory.
            env: On top of the machine's variables.
            timeout_s: Seconds until its whole process group is killed.
            stdin: What it reads.
            output_limit_bytes: Of stdout and of stderr; more is cut out of the middle.
            call_id: Asked again with it, a running one is joined; a new one when None.

        Raises:
            errors.CommandNotFound: There is no such command; nothing ran.
            errors.MachineOffline: Its daemon is not connected.
            errors.OutcomeUnknown: It began and its end was lost.

        Cancellation: safe; the command goes on.
        """
        with transport.checked():
            asked = machines.MachineExec(
                machine_id=machine_id,
                command=words(command),
                cwd=cwd,
                env=dict(env or {}),
                timeout_s=timeout_s,
                stdin=stdin,
                output_limit_bytes=output_limit_bytes,
                call_id=call_id or new_token(),
            )
        return await self._link.call(methods.MACHINE_EXEC, asked, takes_s=timeout_s, is_named=True)

    async def write_file(
        self,
        machine_id: str,
        path: str,
        content: str | bytes,
        *,
        mode: int = 0o644,
        call_id: str | None = None,
    ) -> machines.WriteFileResult:
        """Write one small file; parents are made.

        Raises:
            errors.PayloadTooLarge: It does not fit in one message.
        """
        text, is_text = _as_text(content)
        size_bytes, limit_bytes = (
            (len(text.encode()), machines.FILE_MAX_BYTES)
            if is_text
            else (
                len(content),
                WRITE_MAX_BYTES,
            )
        )
        if size_bytes > limit_bytes:
            raise errors.PayloadTooLarge(
                f"cannot write {path}: {size_bytes} bytes are more than fit in one call ({limit_bytes})"
            )
        with transport.checked():
            asked = machines.MachineWriteFile(
                machine_id=machine_id,
                path=path,
                content=text,
                encoding="utf-8" if is_text else "base64",
                mode=mode,
                call_id=call_id or new_token(),
            )
        return await self._link.call(methods.MACHINE_WRITE_FILE, asked, is_named=True)

    async def read_file(
        self, machine_id: str, path: str, *, offset: int = 0, length: int | None = None
    ) -> machines.ReadFileResult:
        """A file or a part of it; `length` 0 answers size and digest only."""
        with transport.checked():
            asked = machines.MachineReadFile(machine_id=machine_id, path=path, offset=offset, length=length)
        return await self._link.call(methods.MACHINE_READ_FILE, asked)

    async def read_bytes(self, machine_id: str, path: str) -> bytes:
        """A whole file, in parts, checked against its digest.

        Raises:
            errors.Conflict: The file changed while it was read.
        """
        content = b""
        while True:
            part = await self.read_file(machine_id, path, offset=len(content), length=READ_PART_BYTES)
            content += part_bytes(part)
            if len(content) >= part.size or not part.content:
                break
        if hashlib.sha256(content).hexdigest() != part.sha256:
            raise errors.Conflict(f"cannot read {path} whole: it changed meanwhile; read it again")
        return content


def part_bytes(part: machines.ReadFileResult) -> bytes:
    """The bytes of what was read."""
    return base64.b64decode(part.content) if part.encoding == "base64" else part.content.encode()


def _as_text(content: str | bytes) -> tuple[str, bool]:
    """`content` as it travels: itself when it is text, else base64."""
    if isinstance(content, str):
        return content, True
    try:
        return content.decode(), True
    except UnicodeDecodeError:
        return base64.b64encode(content).decode("ascii"), False
