"""tool.execCommand: what it starts, in what surroundings, and what it says when it cannot."""

import os
import pathlib

import pytest

from paddock.bus import children
from paddock.contracts import daemon, errors
from paddock.daemon import environment, exec_command

BASE = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "WHO": "base", "PADDOCK_SUPERVISOR": "1"}


async def run(home: pathlib.Path, *command: str, **more: object) -> daemon.ExecCommandResult:
    surroundings = environment.Environment(BASE, home / ".env")
    params = daemon.ExecCommandParams(command=list(command), **more)  # type: ignore[arg-type]
    child = exec_command.start(params, surroundings, str(home))
    completed = await child.wait(10)
    assert isinstance(completed, children.Completed)
    return exec_command.result(completed)


async def test_arguments_reach_the_command_without_a_shell(home: pathlib.Path) -> None:
    result = await run(home, "printf", "%s|", "$HOME", "*", "a b", "; exit 3")

    assert (result.exit_code, result.stdout) == (0, "$HOME|*|a b|; exit 3|")


async def test_the_environment_is_base_then_env_file_then_the_calls_own(home: pathlib.Path) -> None:
    (home / ".env").write_text('WHO=file\nFILE="1"\nBOTH=file\n')
    result = await run(home, "env", env={"BOTH": "call"})
    seen = dict(line.split("=", 1) for line in result.stdout.splitlines())

    assert (seen["WHO"], seen["FILE"], seen["BOTH"]) == ("file", "1", "call")
    assert "PADDOCK_SUPERVISOR" not in seen


async def test_a_changed_env_file_is_seen_by_the_next_command(home: pathlib.Path) -> None:
    surroundings = environment.Environment(BASE, home / ".env")
    seen = [surroundings.now().get("K")]
    for value in ("one", "two", "six"):
        (home / "new").write_text(f"K={value}\n")
        (home / "new").rename(home / ".env")
        seen.append(surroundings.now().get("K"))
    (home / ".env").unlink()

    assert [*seen, surroundings.now().get("K")] == [None, "one", "two", "six", None]


async def test_an_env_file_that_cannot_be_read_stops_the_command(home: pathlib.Path) -> None:
    (home / ".env").mkdir()
    with pytest.raises(errors.IsADirectory, match=r"\.env"):
        await run(home, "true")


async def test_commands_are_found_on_the_path_of_their_own_environment(home: pathlib.Path) -> None:
    (home / "bin").mkdir()
    (home / "bin/mine").write_text("#!/bin/sh\necho mine\n")
    (home / "bin/mine").chmod(0o755)
    (home / ".env").write_text(f"PATH={home}/bin:/usr/bin:/bin\n")

    assert (await run(home, "mine")).stdout == "mine\n"


async def test_it_runs_in_the_home_directory_unless_told(home: pathlib.Path) -> None:
    (home / "sub").mkdir()

    assert (await run(home, "pwd")).stdout == f"{home}\n"
    assert (await run(home, "pwd", cwd="~/sub")).stdout == f"{home}/sub\n"
    assert (await run(home, "pwd", cwd="/")).stdout == "/\n"


async def test_stdin_reaches_the_command(home: pathlib.Path) -> None:
    assert (await run(home, "cat", stdin="héllo")).stdout == "héllo"


async def test_bytes_that_are_no_text_are_replaced_and_counted(home: pathlib.Path) -> None:
    result = await run(home, "printf", r"a\377b")

    assert (result.stdout, result.stdout_bytes) == ("a\ufffdb", 3)


async def test_a_timeout_is_said_and_keeps_what_was_printed(home: pathlib.Path) -> None:
    result = await run(home, "sh", "-c", "echo early; sleep 60", timeout_s=0.2)

    assert (result.timed_out, result.exit_code, result.signal) == (True, None, "SIGKILL")
    assert result.stdout == "early\n"


@pytest.mark.parametrize(
    ("command", "more", "fault"),
    [
        (["no-such-command"], {}, errors.CommandNotFound),
        (["/no/such/command"], {}, errors.CommandNotFound),
        (["./file/below"], {}, errors.CommandNotFound),
        (["n" * 300], {}, errors.CommandNotFound),
        (["./file"], {}, errors.PermissionDenied),
        (["./folder"], {}, errors.PermissionDenied),
        (["./orphaned"], {}, errors.CommandNotFound),
        (["./nonsense"], {}, errors.CannotSpawn),
        ([""], {}, errors.InvalidParams),
        (["echo", "a\0b"], {}, errors.InvalidParams),
        (["echo"], {"env": {"A=B": "x"}}, errors.InvalidParams),
        (["echo"], {"env": {"": "x"}}, errors.InvalidParams),
        (["echo"], {"env": {"A": "x\0"}}, errors.InvalidParams),
        (["echo", "x" * 200_000], {}, errors.PayloadTooLarge),
        (["true"], {"cwd": "~/missing"}, errors.NoSuchPath),
        (["true"], {"cwd": "~/file"}, errors.NotADirectory),
        (["true"], {"cwd": "~/" + "n" * 300}, errors.BadPath),
        (["true"], {"cwd": "/" + "n" * 5000}, errors.BadPath),
        (["true"], {"cwd": "relative"}, errors.BadPath),
        (["true"], {"cwd": "~/../.."}, errors.BadPath),
    ],
)
async def test_what_cannot_be_started_is_a_typed_fault_and_never_an_exit_code(
    home: pathlib.Path, command: list[str], more: dict[str, object], fault: type[errors.Fault]
) -> None:
    (home / "file").write_text("text")
    (home / "folder").mkdir()
    for name, content in {"orphaned": "#!/no/such/interpreter\n", "nonsense": "\x7fELF"}.items():
        (home / name).write_text(content)
        (home / name).chmod(0o755)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not opened

    with pytest.raises(fault) as raised:
        await run(home, *command, **more)
    assert type(raised.value) is fault
    assert raised.value.message.startswith("cannot ")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


async def test_an_interpreter_is_missed_only_where_the_command_was_looked_for(
    home: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "folder").mkdir()
    (home / "folder/orphaned").write_text("#!/no/such/interpreter\n")
    (home / "folder/orphaned").chmod(0o755)

    with pytest.raises(errors.CommandNotFound, match="interpreter"):
        await run(home, "./orphaned", cwd="~/folder")
    monkeypatch.chdir(home / "folder")
    with pytest.raises(errors.CommandNotFound, match="there is no such command"):
        await run(home, "orphaned", cwd="~/folder")
