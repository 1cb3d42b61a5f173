"""Commands that are as large as can be, and a daemon that has nothing left to follow them with."""

import itertools
import pathlib
import resource

from paddock.contracts import errors, executions
from tests.daemon import commands as of_commands


def first_free(pid: int) -> int:
    """The number that the next descriptor of this process gets."""
    taken = {int(path.name) for path in pathlib.Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in itertools.count() if number not in taken)


async def test_a_command_with_arguments_as_large_as_a_request_is_followed_to_its_end(
    commands: of_commands.Commands,
) -> None:
    """What says how it is says its arguments, too."""
    arguments = ["x" * 100_000] * 9
    await commands.start("c1", "sh", "-c", "echo ready; read x; exit 3", *arguments, stdin=True)
    async with commands.attached("c1") as channel:
        frame = await channel.receive()
        await commands.write("c1", b"\n")
        end = await channel.finish()

    assert frame is not None
    assert frame.data == b"ready\n"
    assert channel.opened.execution.command[-9:] == end.command[-9:] == arguments
    assert end.exit_code == 3


async def test_a_daemon_without_a_descriptor_left_says_so_and_goes_on(commands: of_commands.Commands) -> None:
    await commands.sh("c1", "echo one; read x; exit 3", stdin=True)
    daemon = commands.machine.state()["pid"]
    free = first_free(daemon)
    limits = resource.prlimit(daemon, resource.RLIMIT_NOFILE)
    refused = []
    for spare in range(4):
        resource.prlimit(daemon, resource.RLIMIT_NOFILE, (free + spare, limits[1]))
        for ask in (
            lambda: commands.follow_to("c1", 4),
            lambda: commands.now("c1"),
            lambda: commands.ask(executions.LIST, executions.ListParams()),
            lambda: commands.ask(executions.OUTPUT, executions.OutputParams(id="c1")),
            lambda: commands.sh("c2", "true"),
        ):
            try:
                await ask()
            except errors.Fault as fault:
                refused.append(fault)
        resource.prlimit(daemon, resource.RLIMIT_NOFILE, limits)
    await commands.write("c1", b"\n")
    ended = await commands.ended("c1")

    assert refused
    assert {type(fault) for fault in refused} <= {errors.InputOutput, errors.KeeperLost}
    assert ended.exit_code == 3
    assert commands.machine.state()["pid"] == daemon
