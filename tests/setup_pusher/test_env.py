import stat
from collections.abc import Callable

import msgspec
import pytest

from paddock.contracts import daemon, errors
from paddock.setup_pusher import env, environment, guest
from tests.setup_pusher import machine as machines

View = Callable[..., guest.Guest]
ONE = environment.Environment({"KEY": "one"})
OTHER = environment.Environment({"KEY": "other"})


async def test_the_file_is_written_0600_and_commands_see_it(machine: machines.Machine, view: View) -> None:
    wrote = await env.apply(view(), ONE)

    path = machine.home / ".paddock/.env"
    seen = await view().look("printenv", "KEY")
    assert (wrote, stat.S_IMODE(path.stat().st_mode), seen.stdout) == (True, 0o600, "one\n")


async def test_the_same_environment_is_not_written_again(machine: machines.Machine, view: View) -> None:
    await env.apply(view(), ONE)

    assert [await env.apply(view(), ONE) for _ in range(3)] == [False, False, False]
    assert machine.writes == [daemon.ENV_FILE]


async def test_going_back_to_an_earlier_environment_writes_it(machine: machines.Machine, view: View) -> None:
    for wanted in (ONE, OTHER, ONE):
        assert await env.apply(view(), wanted)

    assert (machine.home / ".paddock/.env").read_text() == ONE.text


@pytest.mark.parametrize("spoil", ["content", "mode", "gone"])
async def test_what_somebody_spoiled_is_put_right(machine: machines.Machine, view: View, spoil: str) -> None:
    await env.apply(view(), ONE)
    path = machine.home / ".paddock/.env"
    match spoil:
        case "content":
            path.write_text("KEY=forged\n")
        case "mode":
            path.chmod(0o644)
        case _:
            path.unlink()

    assert await env.apply(view(), ONE)
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (ONE.text, 0o600)


async def test_applied_means_confirmed_by_the_machine(machine: machines.Machine, view: View) -> None:
    def lie(params: msgspec.Struct) -> msgspec.Struct | None:
        is_write = isinstance(params, daemon.WriteFileParams)
        return daemon.WriteFileResult(path="x", bytes_written=0, sha256=ONE.sha256) if is_write else None

    machine.stub = lie

    with pytest.raises(errors.SetupFailed, match="not what was written"):
        await env.apply(view(), ONE)
