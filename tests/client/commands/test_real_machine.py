"""The commands on pseudo-terminals against a real daemon, over a real gateway and a network that breaks."""

import asyncio
import os
import pathlib
import signal
import stat
from collections.abc import AsyncIterator

import pytest

from paddock.client import address
from tests.client import real_machine
from tests.client.commands import person


@pytest.fixture
async def real(tmp_path: pathlib.Path) -> AsyncIterator[real_machine.RealMachine]:
    async with real_machine.opened(tmp_path / "real") as running:
        yield running


@pytest.fixture
def gateway(real: real_machine.RealMachine) -> address.Address:
    return real.machine.exec._link._where


async def test_a_shell_on_a_terminal_has_its_size_its_keys_and_its_signals(
    real: real_machine.RealMachine, gateway: address.Address
) -> None:
    async with person.at_terminal(gateway, "shell", real.machine.id, columns=71, rows=19) as somebody:
        before = somebody.modes()
        somebody.types(b"PS1='>'; stty size; tty\r")
        await somebody.sees(b"19 71\r\n/dev/pts/")
        somebody.resizes(90, 33)
        somebody.types(b"until stty size | grep 33; do sleep 0.1; done; echo rea''dy; sleep 100\r")
        await somebody.sees(b"ready\r\n")
        somebody.types(b"\x03")
        # What is typed before the shell asks again can go with the line that was interrupted.
        await somebody.sees_after(b"^C", b">")
        somebody.types(b"exit 7\r")

        assert await somebody.ends() == 7
        assert b"33 90\r\n" in somebody.seen
        assert somebody.modes() == before


async def test_a_terminal_is_left_and_taken_over_with_what_was_on_it(
    real: real_machine.RealMachine, gateway: address.Address
) -> None:
    machine = real.machine.id
    async with person.at_terminal(gateway, "exec", "-t", "--id", "t", machine, "sh") as somebody:
        somebody.types(b"X=kept; echo first-$X\r")
        await somebody.sees(b"first-kept")
        somebody.closes()
        assert await somebody.ends() == 129
    async with person.at_terminal(gateway, "attach", "-i", machine, "t") as somebody:
        await somebody.sees(b"first-kept")
        somebody.types(b"echo second-$X; exit 3\r")
        await somebody.sees(b"second-kept")

        assert await somebody.ends() == 3


async def test_bytes_pass_both_ways_over_cut_links_and_a_killed_daemon(
    real: real_machine.RealMachine, gateway: address.Address
) -> None:
    given = os.urandom(3_000_000)
    real.proxy.cuts.extend([500_000, 1_000_000])
    script = "cat; echo over >&2; kill -9 $$"
    async with person.on_pipes(gateway, "exec", "-i", real.machine.id, "sh", "-c", script) as process:
        assert process.stdin is not None
        process.stdin.write(given[:1_000_000])
        assert process.stdout is not None
        got = await process.stdout.readexactly(1_000_000)
        await real.restart_daemon()
        rest, remarks = await process.communicate(given[1_000_000:])

    assert got + rest == given
    assert (process.returncode, remarks) == (137, b"over\npaddock: it was ended by SIGKILL\n")


async def test_ctrl_c_reaches_the_whole_group(
    real: real_machine.RealMachine, gateway: address.Address
) -> None:
    script = "trap 'echo caught; exit 9' INT; echo ready; sleep 100 & wait"
    async with person.on_pipes(gateway, "exec", real.machine.id, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert await process.stdout.readexactly(6) == b"ready\n"
        process.send_signal(signal.SIGINT)
        output, _ = await process.communicate()

    assert (process.returncode, output) == (9, b"caught\n")


async def test_a_pipe_that_is_closed_ends_the_command(
    real: real_machine.RealMachine, gateway: address.Address
) -> None:
    reading, writing = os.pipe()
    async with person.on_pipes(gateway, "exec", real.machine.id, "yes", stdout=writing) as process:
        os.close(writing)
        assert await asyncio.to_thread(os.read, reading, 2) == b"y\n"
        os.close(reading)
        _, remarks = await process.communicate()

    assert (process.returncode, remarks) == (141, b"")
    assert [one.signal for one in await real.machine.exec.list()] == ["SIGPIPE"]


async def test_a_folder_goes_there_and_back_the_same(
    real: real_machine.RealMachine, gateway: address.Address, tmp_path: pathlib.Path
) -> None:
    top = tmp_path / "src"
    (top / "closed").mkdir(parents=True)
    (top / "run").write_text("#!/bin/sh\n")
    (top / "run").chmod(0o755)
    (top / "closed/big").write_bytes(os.urandom(400_000))
    (top / "closed/link").symlink_to("../run")
    (top / "nowhere").symlink_to("/nowhere")
    (top / "closed").chmod(0o555)
    machine = real.machine.id

    for arguments in (("src", f"{machine}:app"), (f"{machine}:app", "back"), (f"{machine}:app/.", "back")):
        async with person.on_pipes(gateway, "cp", "-r", *arguments, cwd=tmp_path) as process:
            assert (await process.communicate(), process.returncode) == ((b"", b""), 0)

    def seen(folder: pathlib.Path) -> dict[str, tuple[int, bytes | str]]:
        return {
            str(path.relative_to(folder)): (
                stat.S_IMODE(path.lstat().st_mode),
                str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else "",
            )
            for path in folder.rglob("*")
        }

    assert seen(tmp_path / "back") == seen(top) == seen(real.home / "app")
    for one in (top, tmp_path / "back", real.home / "app"):
        (one / "closed").chmod(0o755)  # so that it can be removed


async def test_commands_and_files_are_listed(
    real: real_machine.RealMachine, gateway: address.Address
) -> None:
    machine = real.machine.id
    (real.home / "x\x1b[31m").write_text("x")
    shown = []
    for arguments in (
        ("exec", machine, "sh", "-c", "echo out; echo err >&2; exit 4"),
        ("exec", "-d", "--id", "sleeper", machine, "sleep", "100"),
        ("ps", "-a", machine),
        ("logs", machine, "sleeper"),
        ("files", "ls", machine),
    ):
        async with person.on_pipes(gateway, *arguments) as process:
            output, remarks = await process.communicate()
            shown.append((process.returncode, output.decode(), remarks.decode()))

    assert shown[0] == (4, "out\n", "err\n")
    assert shown[1] == (0, "sleeper\n", "")
    assert [line.split()[1:3] for line in shown[2][1].splitlines()[1:]][1] == ["ended", "4"]
    assert "running" in shown[2][1]
    assert shown[3] == (0, "", "")
    assert r"x\x1b[31m" in shown[4][1]
