"""`make demo`: one machine from created to active and back to nothing, on a stack of its own.

Everything is real and everything is checked; the first thing that is not as it should be ends the demo with 1.
Nothing is left running: what the demo made is removed even when it fails, through the provider itself if need be.
"""

import asyncio
import contextlib
import os
import pathlib
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from typing import Final

import uvloop

from paddock.bus import logs
from paddock.client import client as paddock_client
from paddock.client import env, websocket
from paddock.contracts import errors, events
from paddock.contracts.api import machines, projects
from paddock.local import demo_repository, narrator, runtime, sandboxes, stack, wiring

ACTIVE_S = 180.0
CHANGE_S = 60.0
DELETE_S = 60.0
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
STOPPED: Final = 130
"""The exit code after ctrl-c, as of every command."""
VARIABLE: Final = "DEMO_SECRET"
CLONE: Final = "demo"
MARK: Final = "setup-step-was-here"


class NotAsPromisedError(Exception):
    """The demo saw something that is not as it should be."""


async def tell(say: narrator.Narrator, data: pathlib.Path) -> None:
    """The whole demo on the empty folder `data`.

    Raises:
        errors.Fault: Something did not work.
        NotAsPromisedError: Something was not as it should be.
    """
    daemon = runtime.find()
    with sandboxes.Host(data, daemon) as host:
        say.title("A control plane on this machine")
        provider, why_not = await sandboxes.best(daemon)
        if why_not:
            say.notice(
                "bubblewrap cannot run here, so the machine will be plain processes WITHOUT ISOLATION:"
            )
            say.notice(f"  {why_not}")
        settings = wiring.Settings(data=data, gateway_port=0, unsafe_process_provider=provider == "process")
        try:
            async with stack.Stack(settings) as running:
                say.fact("gateway", running.url)
                say.fact("bus", running.addresses.nats)
                say.fact("provider", provider)
                async with paddock_client.Client(running.url, running.token()) as client:
                    await _one_machine(say, client, provider, data)
        except BaseException:
            await host.remove_everything()
            raise
        _check(await host.remove_everything() == 0, "a sandbox outlived its machine")
    say.title("Stopped, nothing is left running")


async def _one_machine(
    say: narrator.Narrator, client: paddock_client.Client, provider: str, data: pathlib.Path
) -> None:
    say.title("A project: a secret variable, a repository, a setup step")
    secret = secrets.token_hex(8)
    async with _repository(data) as (url, origin):
        project = await _project(client, provider, url, secret)
        say.fact("project", f"{project.name} ({project.id})")
        say.fact("repository", f"{url} ({origin})")
        say.title("A machine")
        async with client.events(project_id=project.id) as feed:
            machine = await client.machines.create(project.id, name="demo-machine")
            await _until(say, feed, client, machine.id, events.MACHINE_ACTIVATED, ACTIVE_S)
            await _use(say, client, machine.id, secret)
            await _change(say, client, feed, project.id, machine.id)
    say.title("Its history")
    say.history(await client.machines.history(machine.id))
    say.title("And back to nothing")
    gone = await client.machines.delete(machine.id, wait_s=DELETE_S)
    _check(gone.phase == "deleted", f"the machine is {gone.phase} and not deleted after {DELETE_S:.0f} s")
    await client.projects.delete(project.id)
    say.fact("machine", "deleted")


@contextlib.asynccontextmanager
async def _repository(data: pathlib.Path) -> AsyncIterator[tuple[str, str]]:
    if url := os.environ.get("DEMO_REPO"):
        yield url, "from DEMO_REPO"
        return
    folder = data / "repository"
    folder.mkdir()
    async with demo_repository.served(folder) as (url, origin):
        yield url, origin


async def _project(client: paddock_client.Client, provider: str, url: str, secret: str) -> projects.Project:
    step = projects.SetupStep(name="leave a mark", command=["sh", "-c", f"echo {MARK} >> ~/mark"])
    probe = projects.ExecProbe(kind="exec", command=["test", "-d", CLONE])
    project = await client.projects.create(
        "demo", provider=provider, blueprint=projects.Blueprint(setup_steps=[step], probes=[probe])
    )
    await client.env.set(env.project(project.id), {VARIABLE: secret})
    await client.repositories.add(project.id, url, CLONE)
    return project


async def _use(say: narrator.Narrator, client: paddock_client.Client, machine: str, secret: str) -> None:
    say.title("Commands in it, through the gateway")
    log = await _run(say, client, machine, ["git", "log", "-1", "--format=%h %an: %s"], cwd=f"~/{CLONE}")
    _check(bool(log), "the clone has no commit")
    mark = await _run(say, client, machine, ["cat", "mark"])
    _check(mark == MARK, "the setup step did not run exactly once")
    value = await _run(say, client, machine, ["printenv", VARIABLE])
    _check(value == secret, "the variable does not have the value it was given")


async def _change(
    say: narrator.Narrator,
    client: paddock_client.Client,
    feed: websocket.EventFeed,
    project: str,
    machine: str,
) -> None:
    say.title("The variable changes")
    changed = secrets.token_hex(8)
    before = (await client.machines.get(machine)).env
    await client.env.set(env.project(project), {VARIABLE: changed})
    wanted = (await client.machines.get(machine)).env.desired
    _check(wanted > before.desired, "the machine does not want the new environment")
    while (versions := (await client.machines.get(machine)).env).applied < wanted:
        await _until(say, feed, client, machine, events.MACHINE_ENV_PUSHED, CHANGE_S)
    say.fact("environment", f"version {before.applied} → {versions.applied} applied")
    value = await _run(say, client, machine, ["printenv", VARIABLE])
    _check(value == changed, "the next command does not see the new value")


async def _run(
    say: narrator.Narrator, client: paddock_client.Client, machine: str, command: list[str], *, cwd: str = "~"
) -> str:
    """What the command wrote, without the last line end."""
    result = await client.machines.exec(machine, command, cwd=cwd)
    say.command(command, result)
    _check(result.exit_code == 0, f"{command[0]} ended with exit code {result.exit_code}")
    return result.stdout.rstrip("\n")


async def _until(
    say: narrator.Narrator,
    feed: websocket.EventFeed,
    client: paddock_client.Client,
    machine: str,
    wanted: str,
    timeout_s: float,
) -> None:
    """Show what happens until `wanted` does."""
    try:
        async with asyncio.timeout(timeout_s):
            async for received in feed:
                if received.event.machineid != machine:
                    continue
                say.event(received.event)
                if received.event.type == wanted:
                    return
                if received.event.type == events.MACHINE_FAILED:
                    break
    except TimeoutError:
        say.error(f"no {wanted} within {timeout_s:.0f} s")
    raise await _why(client, await client.machines.get(machine))


async def _why(client: paddock_client.Client, machine: machines.Machine) -> NotAsPromisedError:
    """What the machine itself says about where it is."""
    reason = machine.reason.message if machine.reason else "no reason given"
    with contextlib.suppress(errors.Fault):
        reason += "\n" + (await client.machines.logs(machine.id, tail_bytes=4000)).text
    return NotAsPromisedError(f"the machine is {machine.phase}: {reason}")


def _check(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise NotAsPromisedError(otherwise)


def _on_signals() -> None:
    """Ctrl-C and SIGTERM cancel this task, so that everything is removed on the way out; a second one does not wait."""
    this, loop = asyncio.current_task(), asyncio.get_running_loop()

    def stop() -> None:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
        if this is not None:
            this.cancel()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)


async def _main(say: narrator.Narrator, data: pathlib.Path) -> int:
    _on_signals()
    try:
        await tell(say, data)
    except (errors.Fault, NotAsPromisedError) as problem:
        say.error(str(problem))
        say.notice(f"logs are in {data / 'logs'}")
        return 1
    return 0


def main() -> int:
    """Run the demo on a fresh data folder; it stays for a look when the demo fails."""
    say = narrator.Narrator()
    data = pathlib.Path(tempfile.mkdtemp(prefix="paddock-demo-"))
    with (data / "demo.log").open("w") as stream:
        logs.configure("demo", stream=stream)
        try:
            code = uvloop.run(_main(say, data))
        except asyncio.CancelledError:
            say.title("Stopped before its end, nothing is left running")
            code = STOPPED
        except KeyboardInterrupt:
            say.error(f"stopped at once, a machine may be left: see {data}")
            return STOPPED
    if code in {0, STOPPED}:
        shutil.rmtree(data)
    return code


if __name__ == "__main__":
    sys.exit(main())
