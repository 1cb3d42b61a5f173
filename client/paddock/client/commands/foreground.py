"""A command of a machine in the foreground of this process.

Its output is ours, in bytes and as it comes; its standard input, its Ctrl-C and the size of its terminal are ours where
that was asked for. Who leaves, by a third Ctrl-C, a closed terminal or SIGTERM, leaves it running.
"""

import asyncio
import contextlib
import dataclasses
import signal
from collections.abc import Callable
from typing import Final

from paddock.client import process as processes
from paddock.client.commands import desk, endings, failures, inlet, links, outlet, showing, signals, terminal
from paddock.contracts import errors
from paddock.contracts.api import executions as api

AGAIN_S: Final = 2.0
"""Between two Ctrl-C of which the second means more than the first."""
UNREAD_S: Final = 1.0
"""For a command to end by the SIGPIPE it is sent."""
WAITING_PIECES: Final = 16
"""Of our standard input, beside the one on its way."""
INTERRUPT: Final = b"\x03"
HUNG_UP: Final = signals.BASE + signal.SIGHUP


@dataclasses.dataclass(frozen=True, slots=True)
class Manner:
    """How a command is followed.

    `is_ours`: Ctrl-C reaches it, and so does the end of whoever reads our output; else we only look on. `has_terminal`:
    our terminal is its, keys and all. `skip_bytes` of our standard input were given to it before.
    """

    takes_stdin: bool = False
    has_terminal: bool = False
    is_ours: bool = True
    skip_bytes: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Left:
    """We went and it runs on; `is_told` is whether anybody needs to know how to come back."""

    exit_code: int
    is_told: bool = True


async def follow(process: processes.Process, manner: Manner) -> int:
    """Follow a command to its end, or until somebody wants to leave; answers our own exit code.

    Raises:
        errors.Fault: It could not be started or followed, or nobody can say how it ended.
    """
    outcome = await _Foreground(process, manner).run()
    match outcome:
        case errors.Fault() as fault:
            _begin_line(manner)
            if not isinstance(fault, errors.NotFound | errors.MachineGone):
                failures.say(way_back(process, "it may still run"))
            raise fault
        case api.Execution() as ended:
            return endings.exit_code(ended)
        case left:
            if left.is_told:
                _begin_line(manner)
                failures.say(way_back(process))
            return left.exit_code


def _begin_line(manner: Manner) -> None:
    if manner.has_terminal:
        failures.remark("")  # wherever the command left the cursor


def way_back(process: processes.Process, what: str = "left it running") -> str:
    return failures.printable(f"{what}; come back with: paddock attach {process.machine_id} {process.id}")


class _Foreground:
    def __init__(self, process: processes.Process, manner: Manner) -> None:
        self._process, self._manner = process, manner
        self._outcome: asyncio.Future[api.Execution | errors.Fault | Left] = (
            asyncio.get_running_loop().create_future()
        )
        self._link = links.Notice(self._say)
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(WAITING_PIECES)
        self._resized = asyncio.Event()
        self._interrupted_at = float("-inf")
        self._was_terminated = self._was_hinted = False
        self._is_deaf = False
        self._start_task: Callable[[str], None] = lambda name: None
        self._set_raw: Callable[[], None] = lambda: None

    async def run(self) -> api.Execution | errors.Fault | Left:
        async with contextlib.AsyncExitStack() as stack:
            out = await stack.enter_async_context(outlet.Outlet())
            stack.callback(self._link.close)
            self._process.on_link = self._link
            # Before the terminal is changed: from then on no signal may end us without giving it back.
            stack.enter_context(signals.handled(self._handlers()))
            if self._manner.has_terminal:
                self._set_raw = stack.enter_context(terminal.raw())
            async with asyncio.TaskGroup() as tasks:
                works = [tasks.create_task(self._show(out), name="output")]
                if self._manner.takes_stdin:
                    reading = tasks.create_task(self._read(), name="stdin")
                    works += [reading, tasks.create_task(self._write(reading), name="write")]
                if self._manner.has_terminal:
                    works += [tasks.create_task(self._resize(), name="resize")]
                self._start_task = lambda name: works.append(tasks.create_task(self._send(name), name=name))
                outcome = await self._outcome
                for work in works:
                    work.cancel()
        return outcome

    def _finish(self, outcome: api.Execution | errors.Fault | Left) -> None:
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    def _say(self, text: str) -> None:
        """A remark, also where a new line does not begin at its left end by itself."""
        if self._manner.has_terminal:
            failures.remark(f"\r\npaddock: {text}\r")
        else:
            failures.say(text)

    # Its output.

    async def _show(self, out: outlet.Outlet) -> None:
        try:
            self._finish(await showing.show(self._process, out, say=self._say))
        except errors.Fault as fault:
            self._finish(fault)
        except outlet.HungUp:
            self._finish(Left(HUNG_UP, is_told=False))
        except BrokenPipeError:
            self._finish(await self._unread())

    async def _unread(self) -> Left:
        """Nobody reads our output any more, as in `| head`: the command learns it as it would from a pipe."""
        if not self._manner.is_ours or self._manner.has_terminal:
            return Left(outlet.BROKEN_PIPE, is_told=False)
        try:
            await self._process.signal("PIPE")
            await self._process.wait(timeout_s=UNREAD_S)
        except errors.NotRunning:
            return Left(outlet.BROKEN_PIPE, is_told=False)
        except errors.Fault:  # it takes no notice of the signal, or did not get it
            return Left(outlet.BROKEN_PIPE)
        return Left(outlet.BROKEN_PIPE, is_told=False)

    # Its input.

    async def _read(self) -> None:
        skip_bytes = self._manner.skip_bytes
        async with inlet.Inlet() as pieces:
            async for piece in pieces:
                if (self._link.is_told or self._is_deaf) and self._manner.has_terminal and INTERRUPT in piece:
                    self._finish(Left(desk.INTERRUPTED))
                if self._is_deaf:
                    continue
                skipped = min(skip_bytes, len(piece))
                skip_bytes -= skipped
                if piece[skipped:]:
                    await self._pieces.put(piece[skipped:])
        if self._manner.has_terminal:  # its keys have no end, so it is gone
            self._finish(Left(HUNG_UP, is_told=False))
        await self._pieces.put(b"")

    async def _write(self, reading: asyncio.Task[None]) -> None:
        """Give it what is read. When it takes nothing more we read no further, but for a Ctrl-C to leave by."""
        try:
            while piece := await self._pieces.get():
                # All that was typed during one round trip goes with the next.
                together = [piece, *self._waiting()]
                await self._process.write(b"".join(together), eof=not together[-1])
                if not together[-1]:
                    return
            await self._process.close_stdin()
        except (errors.NotRunning, errors.StdinClosed):
            return
        except errors.Fault as fault:
            self._say(failures.sentence(fault))
        finally:
            self._is_deaf = True
            if not self._manner.has_terminal:
                reading.cancel()

    def _waiting(self) -> list[bytes]:
        """What was read meanwhile; with an empty piece last at the end."""
        return [self._pieces.get_nowait() for _ in range(self._pieces.qsize())]

    async def _resize(self) -> None:
        known = None
        while True:
            size = terminal.size()
            if size != known:
                known = size
                try:
                    await self._process.resize(size.columns, size.rows)
                except errors.Fault as fault:
                    if not fault.retryable:
                        return  # it has ended, or has no terminal
            await self._resized.wait()
            self._resized.clear()

    # Signals to us.

    def _handlers(self) -> dict[signal.Signals, Callable[[], None]]:
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGINT: self._interrupted,
            signal.SIGTERM: lambda: self._finish(Left(signals.BASE + signal.SIGTERM)),
            signal.SIGHUP: lambda: self._finish(Left(HUNG_UP, is_told=False)),
        }
        if self._manner.has_terminal:
            handlers |= {signal.SIGWINCH: self._resized.set, signal.SIGCONT: self._continued}
        return handlers

    def _continued(self) -> None:
        self._set_raw()
        self._resized.set()

    def _interrupted(self) -> None:
        """Ctrl-C: SIGINT for the command, then SIGTERM, then we go."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._outcome.done():
            return
        if not self._manner.is_ours or self._was_terminated:
            self._finish(Left(desk.INTERRUPTED))
        elif now - self._interrupted_at < AGAIN_S:
            self._was_terminated = True
            self._say("sent it SIGTERM; Ctrl-C once more leaves it running")
            self._start_task("TERM")
        else:
            self._interrupted_at = now
            self._start_task("INT")
            loop.call_later(AGAIN_S, self._hint)

    def _hint(self) -> None:
        """For somebody who waits in front of a command that takes no notice of SIGINT."""
        if not (self._outcome.done() or self._was_terminated or self._was_hinted) and terminal.is_shown():
            self._was_hinted = True
            self._say("it goes on; Ctrl-C twice within 2 s sends it SIGTERM, a third leaves it running")

    async def _send(self, name: str) -> None:
        try:
            await self._process.signal(name)
        except errors.NotRunning:
            return
        except errors.Fault as fault:
            self._say(failures.sentence(fault))
