"""kill -9 of the process that makes a sandbox, at each step: afterwards there is one sandbox or none, and it is known."""

import asyncio
import pathlib
import signal
import sys
from collections.abc import Callable

import pytest

from paddock.contracts import ids
from paddock.provisioner.providers import bubblewrap, host, process, runtime
from tests.provisioner import inside

ROOT = pathlib.Path(__file__).parents[2]
S1 = ids.SandboxId("m1-1")
MAKER = """
import asyncio, os, pathlib, signal, sys
from paddock.provisioner.providers import bubblewrap, homes, host, process, records, runtime
from tests.provisioner import inside

kind, step, data, venv = sys.argv[1:]

def die(owner, name, *, after=False, count=1):
    real, calls = getattr(owner, name), []
    def dying(*given, **more):
        calls.append(name)
        if len(calls) == count and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*given, **more)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, dying)

made = {"bubblewrap": bubblewrap.Bubblewrap, "process": process.Process}[kind](
    pathlib.Path(data), runtime.locate(pathlib.Path(venv))
)
asyncio.run(made.available())
match step:
    case "folder": die(records.Records, "make", after=True)
    case "record": die(records.Folder, "save", after=True)
    case "homes": die(homes, "inject", after=True)
    case "spawn": die(os, "posix_spawn", after=True)
    case "launch": die(type(made), "_launch", after=True)
    case "noted": die(records.Folder, "save", after=True, count=2)
asyncio.run(made.create(inside.spec()))
"""


@pytest.mark.parametrize("step", ["folder", "record", "homes", "spawn", "launch", "noted"])
@pytest.mark.parametrize("kind", ["bubblewrap", "process"])
async def test_whoever_comes_after_a_kill_finds_or_makes_exactly_one(
    kind: str, step: str, tmp_path: pathlib.Path, daemon: runtime.Runtime
) -> None:
    data = tmp_path / "data"
    maker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MAKER, kind, step, str(data), str(daemon.venv), cwd=ROOT
    )
    async with asyncio.timeout(inside.WAIT_S):
        assert await maker.wait() == -signal.SIGKILL
    kinds: dict[str, Callable[..., host.HostProvider]]
    kinds = {"process": process.Process, "bubblewrap": bubblewrap.Bubblewrap}
    provider = kinds[kind](data, daemon)

    async with inside.emptied(provider) as successor:
        listed = [found.sandbox_id for found in await successor.sandboxes()]
        made = await successor.create(inside.spec())
        again = await successor.create(inside.spec())

        await inside.says(successor, S1, "supervising")
        assert listed == [S1]
        assert made.is_new is (step in {"folder", "record", "homes"})
        assert again.external_id == made.external_id
        assert len(inside.supervisors(successor, S1)) == 1
        await successor.delete(S1)
        assert inside.supervisors(successor, S1) == []
        assert await successor.sandboxes() == []
