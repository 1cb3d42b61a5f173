"""Starting processes that are to outlive us, and taking leave of those that do not.

Each gets a session of its own, the boot log for its output and nothing else of ours: no terminal, no descriptor somebody
left open, no signal mask. Started by posix_spawn, in milliseconds whatever the size of this process.
"""

import os
import signal
from typing import Final

from paddock.provisioner.providers import procs, records

_DEFAULTED: Final = [signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD]


class Spawner:
    """The children of one provider in this process. `notes_exits`: write into their folders how they ended."""

    def __init__(self, *, notes_exits: bool) -> None:
        self._notes_exits = notes_exits
        self._children: dict[int, records.Folder] = {}

    def spawn(
        self, folder: records.Folder, argv: list[str], env: dict[str, str], *extra: tuple[int, int]
    ) -> int:
        """Start a child and return its pid.

        Args:
            folder: Of its sandbox; the boot log is in there.
            argv: The binary by its path, and its arguments. Every process list shows them.
            env: All of its environment. Every process of its user can read it.
            extra: Descriptors to give it, as (ours, its).

        Raises:
            OSError: It could not be started.
        """
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            given = [
                (os.POSIX_SPAWN_DUP2, ours, its) for ours, its in ((null, 0), (log, 1), (log, 2), *extra)
            ]
            kept = {its for _, _, its in given}
            closed = [(os.POSIX_SPAWN_CLOSE, number) for number in procs.inheritable() if number not in kept]
            pid = os.posix_spawn(
                argv[0],
                argv,
                env,
                file_actions=[*closed, *given],
                setsid=True,
                setsigmask=[],
                setsigdef=_DEFAULTED,
            )
        finally:
            os.close(null)
            os.close(log)
        self._children[pid] = folder
        return pid

    def reap(self) -> None:
        """Take leave of the children that ended."""
        for pid, folder in list(self._children.items()):
            code: int | None = None
            try:
                done, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                done = pid
            else:
                code = os.waitstatus_to_exitcode(status)
            # Of two threads that reap at once only one gets to pop it.
            is_ours = bool(done) and self._children.pop(pid, None) is not None
            if is_ours and code is not None and self._notes_exits:
                folder.note_exit(code)
