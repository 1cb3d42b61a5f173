"""Commands in a machine that run exactly once and can always be picked up again.

    running = await client.machine(machine_id).exec.start(["make", "test"])
    async for chunk in running.stdout:
        …
    ended = await running.wait()

A command goes on whoever goes away; with its id it is found again from anywhere, with everything it wrote.
"""

import builtins
from collections.abc import Mapping, Sequence

from paddock.client import machines, process, transport
from paddock.contracts import executions
from paddock.contracts.api import executions as api
from paddock.contracts.api import methods

START_S = 35.0
"""For a machine to start a command, and a second time when its answer was lost."""


class Executions:
    """The commands of one machine."""

    def __init__(self, link: transport.Transport, machine_id: str) -> None:
        self._link, self._machine_id = link, machine_id

    async def start(
        self,
        command: Sequence[str],
        *,
        id: str | None = None,  # noqa: A002 - what it is called on the wire
        cwd: str = "~",
        env: Mapping[str, str] | None = None,
        user: str = "",
        stdin: bool = False,
        pty: bool = False,
        columns: int = 80,
        rows: int = 24,
        timeout_s: float | None = None,
        output_limit_bytes: int = executions.SPOOL_LIMIT_BYTES,
    ) -> process.Process:
        """Start a command, no shell; answers as soon as it runs, or as it is when it was started before.

        Args:
            command: The binary and its arguments.
            id: Your name for it: started again with it, it is found instead. Made here when None.
            cwd: The working directory.
            env: On top of the machine's variables.
            user: A name or number; the daemon's own when empty.
            stdin: Keep its stdin open for `Process.write`; it is empty otherwise.
            pty: Give it a terminal; then everything it writes is stdout.
            columns: Of the terminal.
            rows: Of the terminal.
            timeout_s: Seconds until its whole process group is killed; no limit when None.
            output_limit_bytes: Of stdout and of stderr that are kept; beyond it the oldest bytes go.

        Raises:
            errors.CommandNotFound: There is no such command; nothing ran. Other faults say what else was wrong.
            errors.Conflict: The id was used for another command.
            errors.OutcomeUnknown: It was accepted before, and nobody can say whether it was started.
            errors.MachineOffline: Its daemon is not connected.

        Cancellation: the command may have been started; the same id finds it.
        """
        with transport.checked():
            asked = api.MachineExecStart(
                machine_id=self._machine_id,
                id=id or machines.new_token(),
                command=machines.words(command),
                cwd=cwd,
                env=dict(env or {}),
                user=user,
                stdin=stdin,
                pty=pty,
                columns=columns,
                rows=rows,
                timeout_s=timeout_s,
                background=True,
                output_limit_bytes=output_limit_bytes,
            )
        started = await self._link.call(methods.MACHINE_EXEC_START, asked, takes_s=START_S, is_named=True)
        return process.Process(self._link, self._machine_id, started.id, started)

    def get(self, exec_id: str) -> process.Process:
        """A command that was started before, by its id; nothing is asked yet."""
        with transport.checked():
            api.ExecNamed(machine_id=self._machine_id, id=exec_id)
        return process.Process(self._link, self._machine_id, exec_id, None)

    async def list(
        self, *, running_only: bool = False, limit: int | None = None
    ) -> builtins.list[api.Execution]:
        """Commands, newest first; ended ones for a day. At most `limit`, all when None."""
        found: builtins.list[api.Execution] = []
        while limit is None or len(found) < limit:
            asked = api.MachineExecList(
                machine_id=self._machine_id,
                running_only=running_only,
                limit=min(executions.LIST_MAX, executions.LIST_MAX if limit is None else limit - len(found)),
                before=found[-1].id if found else "",
            )
            page = await self._link.call(methods.MACHINE_EXEC_LIST, asked)
            found += page.executions
            if page.is_last or not page.executions:
                break
        return found
