"""A real git repository for the demo, served where a sandbox can reach it.

A bare clone of the checkout we are in, or one made on the spot when there is none. It is served as plain files over
HTTP on this host, which git can clone from: a sandbox shares the host's network and not its files.
"""

import contextlib
import functools
import http.server
import os
import pathlib
import threading
from collections.abc import AsyncIterator, Iterator

from paddock.bus import children
from paddock.contracts import errors

BRANCH = "demo"
GIT_S = 60.0
_AUTHOR = ("-c", "user.name=Paddock", "-c", "user.email=demo@paddock.invalid")


class _Files(http.server.SimpleHTTPRequestHandler):
    """Files of one folder, served in silence."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        return


@contextlib.asynccontextmanager
async def served(folder: pathlib.Path) -> AsyncIterator[tuple[str, str]]:
    """A repository in `folder`, which must be empty: its URL while the block lasts, and where it comes from.

    Raises:
        errors.NotFound: There is no git here, or it failed.
    """
    bare = folder / "repo.git"
    origin = "a clone of this checkout" if await _cloned(bare) else "a new one with a single commit"
    if not bare.exists():
        _write_something(folder / "work")
        await _made(folder / "work", bare)
    await _git("-C", str(bare), "update-server-info")
    with _serving(folder) as port:
        yield f"http://127.0.0.1:{port}/{bare.name}", origin


async def _cloned(bare: pathlib.Path) -> bool:
    """A bare clone of the checkout in the working directory; False when there is none to clone.

    Works from a worktree and from a detached head. A shallow checkout does not do: over plain files git would miss the
    commits that are not there.
    """
    try:
        head = (await _git("rev-parse", "--verify", "HEAD")).strip()
        if (await _git("rev-parse", "--is-shallow-repository")).strip() != "false":
            return False
        top = (await _git("rev-parse", "--show-toplevel")).strip()
        # Not by links to the checkout's own object files: it may borrow from others, which nobody serves.
        await _git("clone", "--quiet", "--bare", "--no-local", top, str(bare))
        await _git("-C", str(bare), "update-ref", f"refs/heads/{BRANCH}", head)
        await _git("-C", str(bare), "symbolic-ref", "HEAD", f"refs/heads/{BRANCH}")
    except errors.NotFound:
        return False
    return True


def _write_something(work: pathlib.Path) -> None:
    work.mkdir()
    (work / "README.md").write_text(
        "# Demo\n\nMade by `make demo`, because there was no repository to clone.\n"
    )


async def _made(work: pathlib.Path, bare: pathlib.Path) -> None:
    await _git("init", "--quiet", f"--initial-branch={BRANCH}", str(work))
    await _git("-C", str(work), "add", "README.md")
    await _git("-C", str(work), *_AUTHOR, "commit", "--quiet", "--message", "say what this is")
    await _git("clone", "--quiet", "--bare", str(work), str(bare))


async def _git(*arguments: str) -> str:
    # A caller's GIT_DIR, as in a hook, would point every command here at another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = await children.run(["git", *arguments], timeout_s=GIT_S, env=environment)
    except FileNotFoundError as error:
        raise errors.NotFound("cannot find git on this machine") from error
    if done.exit_code != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise errors.NotFound(f"cannot make a repository: git {arguments[0]} said: {said[-500:]}")
    return done.stdout.decode()


@contextlib.contextmanager
def _serving(folder: pathlib.Path) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=folder))
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="demo-repository"
    )
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
