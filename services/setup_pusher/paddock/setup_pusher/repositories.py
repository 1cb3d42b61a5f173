"""Cloning one repository into one machine, with nothing but commands run there.

A clone grows in `<path>.partial-<run>`, is checked, and then takes its name in one rename that replaces nothing. A path
that already holds a clone of the wanted remote is left alone; any other is `path_in_use`. Nothing of the user's is ever
removed: what we remove are partial clones that a record in the machine says we began.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from typing import Final

from paddock.bus import logs
from paddock.contracts import daemon, errors, git
from paddock.setup_pusher import askpass, guest, redaction

log = logs.get(__name__)

PROTOCOLS = ("https", "http", "ssh", "file")
CLONE_TIMEOUT_S = 300.0
_LOOK_ENV: Final = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}


@dataclasses.dataclass(frozen=True, slots=True)
class Repository:
    """What is wanted: `path` is below HOME; an empty branch means the remote's own."""

    url: str
    path: str
    branch: str = ""
    secret: str | None = dataclasses.field(default=None, repr=False)

    @property
    def operand(self) -> str:
        """The path as git gets it, relative to HOME."""
        return self.path.removeprefix("~/")

    @property
    def step(self) -> str:
        """The name of this repository's setup step: one for each path."""
        return f"repo-{_digest(self.operand)}"

    @property
    def digest(self) -> str:
        """Of what is wanted there; a new secret is no reason to clone again."""
        return _digest(self.url, self.branch, self.operand)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown."""
        return (self.secret,) if self.secret else ()


async def clone(machine: guest.Guest, wanted: Repository, *, protocols: Sequence[str] = PROTOCOLS) -> bool:
    """See to it that the clone is there.

    Returns:
        Whether it was made now; False when it was there before.

    Raises:
        errors.InvalidParams: Git may not be given this URL, branch or path.
        errors.PathInUse: Something else has the path.
        errors.RepositoryFailed: Git said no; `data` has its exit code and the end of what it said.

    Cancellation: safe; a clone under way goes on, and the next claim attaches to it.
    """
    _check(wanted)
    if await _is_there(machine, wanted):
        log.info("repository_left_alone", path=wanted.path, url=wanted.url)
        return False
    attempt = _Attempt(machine, wanted, tuple(protocols))
    log.info("repository_cloning", path=wanted.path, url=wanted.url, branch=wanted.branch, run=machine.run)
    took_ms = await attempt.fetch()
    await attempt.take_name()
    log.info("repository_cloned", path=wanted.path, url=wanted.url, took_ms=took_ms)
    return True


@dataclasses.dataclass(frozen=True, slots=True)
class _Attempt:
    """One run's clone and the partial directory that is its own."""

    machine: guest.Guest
    wanted: Repository
    protocols: tuple[str, ...]

    @property
    def partial(self) -> str:
        return f"{self.wanted.operand}.partial-{self.machine.run}"

    @property
    def record(self) -> str:
        return f"~/.paddock/setup/{self.wanted.step}.partial"

    @property
    def claim(self) -> str:
        """What the record says while the partial directory is this run's."""
        return f"{self.machine.generation}-{self.machine.run} {self.partial}"

    async def fetch(self) -> int:
        """Git's part, or attaching to it. Returns the milliseconds it took."""
        await self._own_partial()
        parent, _, _ = self.wanted.operand.rpartition("/")
        if parent:
            await self._must(
                await self.machine.look("mkdir", "-p", "--", parent), "make its parent directories"
            )
        result = await self.machine.run_once(await self._command())
        await self._must(result, "clone it")
        return result.took_ms

    async def take_name(self) -> None:
        """Check the partial clone and rename it; somebody with the same work may have done so just now."""
        if await _is_clone(self.machine, self.partial, self.wanted.url):
            argv = ("mv", "-nT", "--", self.partial, self.wanted.operand)
            command = guest.Command(f"{self.wanted.step}-name", self.wanted.digest, argv)
            await self.machine.run_once(command)  # whether it took the name is seen below
        if not await _is_there(self.machine, self.wanted):
            raise _path_in_use(self.wanted, "it was taken while the repository was cloned")
        await self.machine.write_file(self.record, "", mode=0o600)

    async def _own_partial(self) -> None:
        """Make the partial path this run's, and remove what earlier runs of ours left in theirs."""
        known = (await self.machine.read_file(self.record) or "").strip()
        if known == self.claim:
            return  # the clone of this run may be growing in it
        _, _, left = known.partition(" ")
        if re.fullmatch(re.escape(self.wanted.operand) + r"\.partial-[0-9]+", left):
            # Named by what it removes: whoever comes late with the same work gets this answer and removes nothing.
            command = guest.Command(
                f"{self.wanted.step}-sweep", _digest(known, self.claim), ("rm", "-rf", "--", left)
            )
            await self._must(await self.machine.run_once(command), "remove what an earlier run left")
        if await _kind(self.machine, self.partial) != "absent":
            raise _path_in_use(self.wanted, f"there is something at {self.partial} that is not ours")
        await self.machine.write_file(self.record, self.claim, mode=0o600)

    async def _command(self) -> guest.Command:
        env = {
            "LC_ALL": "C",  # the prompts askpass answers, and the errors people read
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": ":".join(self.protocols),
            "SSH_ASKPASS_REQUIRE": "never",
        }
        options: list[str] = []
        login = askpass.login(self.wanted.url, self.wanted.secret)
        if login is not None:
            written = await self.machine.write_file(
                askpass.SCRIPT_PATH, askpass.SCRIPT, mode=askpass.SCRIPT_MODE
            )
            env |= login.env(written.path)
            options = login.options()
        branch = ["--branch", self.wanted.branch] if self.wanted.branch else []
        argv = ["git", *options, "clone", *branch, "--single-branch", "--", self.wanted.url, self.partial]
        return guest.Command(
            self.wanted.step, self.wanted.digest, tuple(argv), env=env, timeout_s=CLONE_TIMEOUT_S
        )

    async def _must(self, result: daemon.ExecCommandResult, what: str) -> None:
        if result.exit_code == 0:
            return
        said = redaction.tail(result.stderr or result.stdout, self.wanted.secrets)
        raise errors.RepositoryFailed(
            f"cannot push the repository at {self.wanted.path}: could not {what}: {ended(result, said)}",
            data={
                "path": self.wanted.path,
                "url": logs.redact_text(self.wanted.url),
                "exitCode": result.exit_code,
                "timedOut": result.timed_out,
                "stderrTail": said,
            },
        )


def ended(result: daemon.ExecCommandResult, said: str) -> str:
    """How a command ended, and the line of what it said that says most, if it said anything."""
    return ": ".join(part for part in (ending(result), redaction.gist(said)) if part)


def ending(result: daemon.ExecCommandResult) -> str:
    """How a command ended, in words."""
    if result.timed_out:
        return "it took too long"
    return f"signal {result.signal}" if result.exit_code is None else f"exit code {result.exit_code}"


def _check(wanted: Repository) -> None:
    try:
        git.checked_url(wanted.url)
        git.checked_path(wanted.path)
        if wanted.branch:
            git.checked_branch(wanted.branch)
    except ValueError as error:
        raise errors.InvalidParams(f"cannot clone the repository: its URL, path or branch {error}") from error


async def _is_there(machine: guest.Guest, wanted: Repository) -> bool:
    kind = await _kind(machine, wanted.operand)
    if kind == "absent":
        return False
    if kind == "directory" and await _is_clone(machine, wanted.operand, wanted.url):
        return True
    what = "it is a directory of something else" if kind == "directory" else "a file is in the way"
    raise _path_in_use(wanted, what)


async def _kind(machine: guest.Guest, operand: str) -> str:
    """`absent`, `directory` or `file`; a dangling link looks absent, and is found by the rename that replaces nothing."""
    try:
        return "absent" if await machine.look_at(f"~/{operand}") is None else "file"
    except errors.IsADirectory:
        return "directory"
    except errors.NotADirectory:
        return "file"


async def _is_clone(machine: guest.Guest, operand: str, url: str) -> bool:
    """Whether the top of a work tree with this remote is there."""
    if await _kind(machine, operand) != "directory":
        return False
    # An empty prefix means the top: inside HOME there may be a repository around it.
    top = await machine.look(
        "git", "-C", operand, "rev-parse", "--is-inside-work-tree", "--show-prefix", env=_LOOK_ENV
    )
    if top.exit_code != 0 or top.stdout.split() != ["true"]:
        return False
    argv = ("git", "-C", operand, "config", "--local", "--get-regexp", r"^remote\..*\.url$")
    remotes = await machine.look(*argv, env=_LOOK_ENV)
    found = (line.partition(" ")[2] for line in remotes.stdout.splitlines())
    return any(_same_remote(remote, url) for remote in found)


def _same_remote(one: str, other: str) -> bool:
    return _plain(one) == _plain(other)


def _plain(url: str) -> str:
    """Without what makes no difference: a login, `.git`, a slash at the end."""
    without_login = re.sub(r"^(https?://)[^/@]*@", r"\1", url)
    return without_login.rstrip("/").removesuffix(".git")


def _path_in_use(wanted: Repository, why: str) -> errors.PathInUse:
    return errors.PathInUse(
        f"cannot push the repository at {wanted.path}: {why}, and nothing there is ever removed",
        data={"path": wanted.path, "url": logs.redact_text(wanted.url)},
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
