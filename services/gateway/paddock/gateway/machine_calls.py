"""`machine.*` that ask the machine itself, or the host it runs on: exec, writeFile, readFile, logs."""

from typing import Final

from paddock.bus import caller
from paddock.contracts import daemon, errors, services, subjects
from paddock.contracts.api import machines, methods
from paddock.gateway import jsonrpc, machine_link
from paddock.store import engine, sandboxes
from paddock.store import machines as stored

CALL_S: Final = 60.0
"""For what a machine does at once: files."""
GRACE_S: Final = 30.0
"""Beyond a command's own time: the machine kills it, reads what is left and answers."""
LOGS_S: Final = 10.0


class MachineCalls:
    """Passes calls on."""

    def __init__(self, store: engine.Store, link: machine_link.MachineLink, asks: caller.Caller) -> None:
        self._store, self._link, self._caller = store, link, asks

    def routes(self) -> tuple[jsonrpc.AnyRoute, ...]:
        return (
            jsonrpc.Route(methods.MACHINE_EXEC, self.exec),
            jsonrpc.Route(methods.MACHINE_WRITE_FILE, self.write_file),
            jsonrpc.Route(methods.MACHINE_READ_FILE, self.read_file),
            jsonrpc.Route(methods.MACHINE_LOGS, self.logs),
        )

    async def exec(self, params: machines.MachineExec, _call: jsonrpc.Call) -> machines.ExecResult:
        asked = daemon.ExecCommandParams(
            command=params.command,
            cwd=params.cwd,
            env=params.env,
            timeout_s=params.timeout_s,
            output_limit_bytes=params.output_limit_bytes,
            stdin=params.stdin,
        )
        ended = await self._link.ask(
            params.machine_id,
            daemon.EXEC_COMMAND,
            asked,
            timeout_s=params.timeout_s + GRACE_S,
            call_id=params.call_id,
        )
        return machines.ExecResult.model_construct(**machine_link.members(ended))

    async def write_file(
        self, params: machines.MachineWriteFile, _call: jsonrpc.Call
    ) -> machines.WriteFileResult:
        asked = daemon.WriteFileParams(
            path=params.path, content=params.content, encoding=params.encoding, mode=params.mode
        )
        written = await self._link.ask(
            params.machine_id, daemon.WRITE_FILE, asked, timeout_s=CALL_S, call_id=params.call_id
        )
        return machines.WriteFileResult.model_construct(**machine_link.members(written))

    async def read_file(
        self, params: machines.MachineReadFile, _call: jsonrpc.Call
    ) -> machines.ReadFileResult:
        length = machines.READ_MAX_BYTES if params.length is None else params.length
        asked = daemon.ReadFileParams(path=params.path, offset=params.offset, length=length)
        read = await self._link.ask(params.machine_id, daemon.READ_FILE, asked, timeout_s=CALL_S)
        if params.length is None and read.size - params.offset > length:
            raise errors.PayloadTooLarge(
                f"cannot read {read.size - params.offset} bytes at once: give a length and read parts",
                data={"sizeBytes": read.size, "limitBytes": length},
            )
        return machines.ReadFileResult.model_construct(**machine_link.members(read))

    async def logs(self, params: machines.MachineLogs, _call: jsonrpc.Call) -> machines.Logs:
        async with self._store.read() as tx:
            machine = await stored.get(tx, params.machine_id)
            begun = [one for one in await sandboxes.of_machine(tx, machine.id) if one.node is not None]
        if not begun:
            raise errors.MachineNotReady(
                f"cannot show the log of machine {machine.id}: it has no sandbox yet",
                data={"phase": machine.phase},
            )
        newest = begun[-1]
        log = await self._caller.call(
            subjects.provisioner_call(str(newest.node)),
            services.SANDBOX_LOG,
            services.LogParams(sandbox_id=newest.id, tail_bytes=params.tail_bytes),
            timeout_s=LOGS_S,
        )
        return machines.Logs(sandbox_id=newest.id, text=log.text, size_bytes=log.size_bytes)
