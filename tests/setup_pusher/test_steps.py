import asyncio
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from paddock.contracts import errors
from paddock.setup_pusher import environment, guest, repositories, steps
from tests.setup_pusher import machine as machines
from tests.setup_pusher import remotes
from tests.support import processes

View = Callable[..., guest.Guest]


def sh(script: str, name: str = "", timeout_s: float = 30.0) -> steps.ProjectStep:
    return steps.ProjectStep(name=name or script, argv=("sh", "-c", script), timeout_s=timeout_s)


def setup(
    *commands: steps.ProjectStep, clones: tuple[repositories.Repository, ...] = (), key: str = "v"
) -> steps.Setup:
    return steps.Setup(environment.Environment({"KEY": key}), clones, commands, secrets=["sesame-open"])


def log_of(machine: machines.Machine) -> list[str]:
    path = machine.home / "log"
    return path.read_text().split() if path.exists() else []


async def test_environment_then_repositories_then_commands_in_order(
    machine: machines.Machine, view: View, tmp_path: pathlib.Path
) -> None:
    clone = repositories.Repository(url=f"file://{remotes.bare(tmp_path)}", path="app")
    wanted = setup(sh('echo "$KEY" >> log; cat app/README >> log'), sh("echo 2 >> log"), clones=(clone,))

    pushed = await steps.push(view(), wanted)

    assert log_of(machine) == ["v", "origin", "main", "2"]
    assert (pushed.wrote_env, pushed.steps) == (True, (clone.step, "step-01", "step-02"))


async def test_people_can_follow_each_step_and_no_secret_is_told(
    machine: machines.Machine, view: View, tmp_path: pathlib.Path
) -> None:
    clone = repositories.Repository(url=f"file://{remotes.bare(tmp_path)}", path="app")
    told: list[tuple[str, str]] = []

    async def tell(event_type: str, facts: dict[str, Any]) -> None:
        told.append((event_type.removeprefix("machine.setup-step-"), facts["title"]))

    with pytest.raises(errors.SetupFailed):
        await steps.push(
            view(), setup(sh("true"), sh("false", name="use sesame-open"), clones=(clone,)), tell
        )

    assert told == [
        ("started", "clone app"),
        ("finished", "clone app"),
        ("started", "true"),
        ("finished", "true"),
        ("started", "use ***"),
    ]


async def test_a_hundred_reconnects_push_nothing(
    machine: machines.Machine, view: View, tmp_path: pathlib.Path
) -> None:
    clone = repositories.Repository(url=f"file://{remotes.bare(tmp_path)}", path="app")
    wanted = setup(sh("echo 1 >> log"), clones=(clone,))
    await steps.push(view(), wanted)
    machine.commands.clear()
    machine.writes.clear()

    pushed = [await steps.push(view(), wanted) for _ in range(100)]

    assert set(pushed) == {steps.Pushed(wrote_env=False, steps=())}
    assert (machine.commands, machine.writes, log_of(machine)) == ([], [], ["1"])


async def test_a_changed_environment_is_pushed_alone(machine: machines.Machine, view: View) -> None:
    await steps.push(view(), setup(sh("echo 1 >> log")))

    pushed = await steps.push(view(), setup(sh("echo 1 >> log"), key="new"))

    assert pushed == steps.Pushed(wrote_env=True, steps=())
    assert log_of(machine) == ["1"]


async def test_only_a_changed_step_runs_again(machine: machines.Machine, view: View) -> None:
    await steps.push(view(), setup(sh("echo 1 >> log"), sh("echo 2 >> log")))

    pushed = await steps.push(view(), setup(sh("echo 1 >> log"), sh("echo two >> log")))

    assert (pushed.steps, log_of(machine)) == (("step-02",), ["1", "2", "two"])


async def test_a_new_name_or_limit_is_no_new_step(machine: machines.Machine, view: View) -> None:
    await steps.push(view(), setup(sh("echo 1 >> log")))

    pushed = await steps.push(view(), setup(sh("echo 1 >> log", name="greet", timeout_s=7.0)))

    assert (pushed.steps, log_of(machine)) == ((), ["1"])


async def test_a_crash_between_a_step_and_its_mark_does_not_run_it_again(
    machine: machines.Machine, view: View
) -> None:
    await steps.push(view(), setup(sh("echo 1 >> log")))
    (machine.home / ".paddock/setup/step-01").unlink()

    await steps.push(view(), setup(sh("echo 1 >> log")))

    assert log_of(machine) == ["1"]
    assert (machine.home / ".paddock/setup/step-01").exists()


async def test_pushers_that_are_killed_in_mid_step_leave_one_line(
    machine: machines.Machine, view: View
) -> None:
    wanted = setup(sh("echo 1 >> log; while [ ! -e go ]; do sleep 0.01; done"), sh("echo 2 >> log"))
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for _ in range(5):
            begun = tasks.create_task(steps.push(view(), wanted))
            await processes.until(lambda: log_of(machine))
            begun.cancel()
        (machine.home / "go").touch()
        last = tasks.create_task(steps.push(view(), wanted))

    assert last.result().steps == ("step-01", "step-02")
    assert log_of(machine) == ["1", "2"]


async def test_a_step_that_fails_says_how_and_the_next_are_not_begun(
    machine: machines.Machine, view: View
) -> None:
    wanted = setup(
        sh("echo out; echo 'no such module: sesame-open' >&2; exit 7", name="install"), sh("echo 2 >> log")
    )

    with pytest.raises(errors.SetupFailed) as failed:
        await steps.push(view(), wanted)

    assert failed.value.data["exitCode"] == 7
    assert failed.value.data["stderrTail"] == "no such module: ***"
    assert failed.value.message == "cannot finish the setup step 'install': exit code 7: no such module: ***"
    assert log_of(machine) == []


async def test_the_next_run_begins_with_the_step_that_failed(machine: machines.Machine, view: View) -> None:
    wanted = setup(sh("echo 1 >> log"), sh("echo 2 >> log; [ -e go ]"))
    with pytest.raises(errors.SetupFailed):
        await steps.push(view(run=1), wanted)
    (machine.home / "go").touch()

    pushed = await steps.push(view(run=2), wanted)

    assert (pushed.steps, log_of(machine)) == (("step-02",), ["1", "2", "2"])


async def test_a_step_that_takes_too_long_says_so(view: View) -> None:
    with pytest.raises(errors.SetupFailed, match="took too long") as failed:
        await steps.push(view(), setup(sh("echo half >&2; sleep 30", timeout_s=0.3)))

    assert failed.value.data["timedOut"] is True
    assert failed.value.data["stderrTail"] == "half"


async def test_a_command_that_does_not_exist_is_named_without_an_exit_code(view: View) -> None:
    with pytest.raises(errors.SetupFailed, match="there is no such command") as failed:
        await steps.push(view(), setup(steps.ProjectStep("x", ("no-such-program",))))

    assert failed.value.data == {"step": "x", "kind": "command_not_found"}


async def test_a_step_without_words_on_stderr_shows_its_output(view: View) -> None:
    with pytest.raises(errors.SetupFailed) as failed:
        await steps.push(view(), setup(sh("echo all on stdout; exit 1")))

    assert failed.value.data["stderrTail"] == "all on stdout"


async def test_a_clone_that_was_made_is_not_made_again_when_its_secret_changes(
    machine: machines.Machine, view: View, tmp_path: pathlib.Path
) -> None:
    url = f"file://{remotes.bare(tmp_path)}"
    await steps.push(view(), setup(clones=(repositories.Repository(url=url, path="app"),)))

    pushed = await steps.push(
        view(), setup(clones=(repositories.Repository(url=url, path="app", secret="new"),))
    )

    assert pushed.steps == ()
