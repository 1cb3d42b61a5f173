"""A fleet of services, each its own process, on real sandboxes; and what must hold of it whatever was killed.

What is claimed is read from the provider's records, from the process list and from inside the machines. The database is
asked too, and believed last.
"""

import asyncio
import collections
import contextlib
import pathlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from paddock.client import client as gateway
from paddock.client import env
from paddock.client import machines as client_machines
from paddock.contracts import errors, ids, phases
from paddock.contracts.api import machines, projects
from paddock.local import processes, wiring
from paddock.provisioner.providers import bubblewrap, host, process, runtime
from tests.fault import host_view
from tests.support import daemon_runtime

T = TypeVar("T")

LEASE_S = 4.0
"""Shorter than in production: a takeover costs at most this, and the order of things is the same."""
WITHIN_S = 120.0
POLL_S = 0.1
MARK = 'echo "$PADDOCK_MACHINE_ID" >> ~/mark'
"""The setup step: each run of it leaves one more line."""
VARIABLE = "FAULT_VALUE"
AWAY = (errors.GatewayUnreachable, errors.NoAnswer, errors.ShuttingDown, errors.StoreDown, errors.BusDown)
RUNNERS: tuple[wiring.ServiceName, ...] = ("provisioner", "setup_pusher", "prober")


class Ground:
    """One fleet, one client, one project; `known` is every machine ever asked for."""

    def __init__(
        self,
        fleet: processes.Fleet,
        client: gateway.Client,
        providers: Mapping[str, host.HostProvider],
        project: projects.Project,
    ) -> None:
        self.fleet, self.client, self.project = fleet, client, project
        self.providers = providers
        self.provider = providers[project.provider]
        self.data = fleet.folder.path.resolve()
        self.known: set[str] = set()
        self.value = "first"

    async def create(self, count: int) -> list[str]:
        """So many machines at once, each asked for until the gateway has answered."""
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self.create_one()) for _ in range(count)]
        return [one.result().id for one in asked]

    async def create_one(self, token: str = "") -> machines.Machine:
        token = token or client_machines.new_token()
        made = await patiently(lambda: self.client.machines.create(self.project.id, client_token=token))
        self.known.add(made.id)
        return made

    async def machine(self, machine: str) -> machines.Machine:
        return await patiently(lambda: self.client.machines.get(machine))

    async def listed(self) -> list[machines.Machine]:
        """Every machine of the project that is not deleted."""

        async def ask() -> list[machines.Machine]:
            return [one async for one in self.client.machines.each(project_id=self.project.id)]

        return await patiently(ask)

    async def until_active(self, wanted: Iterable[str], *, within_s: float = WITHIN_S) -> None:
        """Wait until all are active, well and hold the environment they should.

        Raises:
            AssertionError: One failed, or it took too long; it says where each is and why.
        """
        left = set(wanted)

        async def look() -> bool:
            found = {one.id: one for one in await self.listed()}
            broken = [one for one in found.values() if one.id in left and one.phase is phases.Phase.FAILED]
            assert not broken, await self._story(broken)
            return all(is_settled(found[one]) for one in left)

        await self.until_so(look, within_s=within_s, about=left)

    async def until_gone(self, wanted: Iterable[str], *, within_s: float = WITHIN_S) -> None:
        left = set(wanted)

        async def look() -> bool:
            return not left & {one.id for one in await self.listed()}

        await self.until_so(look, within_s=within_s, about=left)

    async def until(
        self, machine: str, is_so: Callable[[machines.Machine], bool], *, within_s: float = WITHIN_S
    ) -> machines.Machine:
        """The machine once `is_so`."""
        found: list[machines.Machine] = []

        async def look() -> bool:
            found[:] = [await self.machine(machine)]
            return is_so(found[0])

        await self.until_so(look, within_s=within_s, about={machine})
        return found[0]

    async def delete(self, wanted: Iterable[str]) -> None:
        """Ask for the end of all of them; they are gone after `until_gone`."""
        async with asyncio.TaskGroup() as tasks:
            for one in wanted:
                tasks.create_task(patiently(lambda one=one: self.client.machines.delete(one)))  # type: ignore[misc]

    async def set_value(self, value: str) -> None:
        """Change the project's variable, which every machine is to get."""
        await patiently(lambda: self.client.env.set(env.project(self.project.id), {VARIABLE: value}))
        self.value = value

    async def said(self, machine: str, *command: str) -> str:
        """What a command in the machine wrote; it is asked anew while the machine cannot be reached."""

        async def ask() -> str:
            result = await self.client.machines.exec(machine, command, timeout_s=30)
            assert result.exit_code == 0, result.stderr
            return result.stdout

        return await patiently(ask, (*AWAY, errors.MachineOffline, errors.OutcomeUnknown))

    def sandboxes(self) -> list[host_view.Sandbox]:
        """The process list's view."""
        return host_view.sandboxes(self.data, self.known)

    def sandbox(self, machine: str) -> host_view.Sandbox:
        """The one living sandbox of a machine."""
        (one,) = [one for one in self.sandboxes() if one.machine == machine]
        return one

    async def expect_whole(self, wanted: Sequence[str], *, has_one_mark: bool = True) -> None:
        """These machines and no others are there, each in exactly one sandbox, and right inside.

        Args:
            wanted: The machines.
            has_one_mark: The setup step ran exactly once in each.
        """
        rows = {one.id: one for one in await self.listed()}
        assert set(rows) == set(wanted)
        expected = [str(rows[one].sandbox_id) for one in sorted(wanted)]
        await self.expect_sandboxes(expected)
        async with asyncio.TaskGroup() as tasks:
            inside = {
                one: tasks.create_task(self.said(one, "sh", "-c", f"echo ${VARIABLE}; cat ~/mark"))
                for one in wanted
            }
        for one, told in inside.items():
            value, *marks = told.result().splitlines()
            assert value == self.value, one
            assert set(marks) == {one}
            assert len(marks) == 1 or not has_one_mark, f"{one}: the setup step ran {len(marks)} times"
        for one in wanted:
            await self.expect_orderly(one)

    async def expect_sandboxes(self, expected: Sequence[str]) -> None:
        """Exactly these sandboxes are on the provider's list and in the process list, one daemon in each."""
        running = self.sandboxes()
        listed = await self.provider.sandboxes()
        assert [one.sandbox_id for one in running] == sorted(expected)
        assert {one.sandbox_id: one.external_id for one in listed} == {
            one.sandbox_id: one.external_id for one in running
        }
        states = [(await self.provider.inspect(one.sandbox_id)).state for one in listed]
        assert set(states) <= {"running"}
        assert [len(one.daemons) for one in running] == [1] * len(running)
        if self.provider.name == "bubblewrap":
            assert len(host_view.launchers(self.data)) == len(running)

    async def expect_orderly(self, machine: str) -> None:
        """Its history has one sandbox that is not gone, and its events' numbers no gap in the outbox."""
        history = await patiently(lambda: self.client.machines.history(machine))
        assert len([one for one in history.sandboxes if one.gone_at is None]) == 1
        numbers = self.query("SELECT body FROM outbox WHERE lane = ? ORDER BY position", machine)
        assert len(numbers) == len(set(numbers)) > 0

    async def expect_nothing_left(self) -> None:
        """No machine, no sandbox, no process, no home."""
        assert await self.listed() == []
        await self.expect_sandboxes([])
        assert host_view.homes(self.data) == []
        assert host_view.launchers(self.data) == []

    async def until_told(self, *, within_s: float = WITHIN_S) -> None:
        """Wait until the outbox has nothing left to say; nothing in it may be parked."""

        async def look() -> bool:
            (parked,) = self.query("SELECT count(*) FROM outbox WHERE parked_at IS NOT NULL")
            assert parked == 0
            return self.query("SELECT count(*) FROM outbox WHERE sent_at IS NULL") == [0]

        await self.until_so(look, within_s=within_s)

    def query(self, statement: str, *values: object) -> list[object]:
        """The first column of what the database holds, read beside the services."""
        with contextlib.closing(sqlite3.connect(self.fleet.folder.database_path, timeout=10)) as database:
            return [row[0] for row in database.execute(statement, values)]

    async def reached(self, service: str, place: str, *, within_s: float = WITHIN_S) -> None:
        """Wait until the running process of this service stands at its barrier."""
        child = self.fleet.running(service)
        left = self.fleet.barrier_dir / f"{place.replace(':', '-')}.{child.pid}"

        async def look() -> bool:
            assert not child.ended.is_set(), f"{service} ended by itself: {child.log_tail()}"
            return left.exists()

        await self.until_so(look, within_s=within_s)

    async def until_so(
        self, look: Callable[[], Awaitable[bool]], *, within_s: float = WITHIN_S, about: Iterable[str] = ()
    ) -> None:
        """Wait until `look` says so; what is said of the machines in `about` when it never does.

        Processes that die tell nobody, and lost events are part of the tests: so this looks again and again.
        """
        try:
            async with asyncio.timeout(within_s):
                while not await look():  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            named = set(about)
            unsettled = [one for one in await self.listed() if one.id in named and not is_settled(one)]
            raise AssertionError(f"not so within {within_s:g} s: {await self._story(unsettled)}") from None

    async def _story(self, about: Sequence[machines.Machine]) -> str:
        """Where machines are and what was tried, for whoever reads a failed test."""
        told = [f"{len(about)} machines are not where they should be"]
        for one in about[:3]:
            history = await patiently(lambda one=one: self.client.machines.history(one.id))  # type: ignore[misc]
            told.append(f"{one.id}: {one.phase} {one.health} {one.connection} {one.reason}")
            told += [f"  {move.phase} {move.at} {move.actor}" for move in history.moves]
            told += [
                f"  {run.stage} run {run.run} attempts {run.attempts} {run.outcome or 'unfinished'} {run.error}"
                for run in history.runs
            ]
        dead = [name for name in self.fleet.started() if self.fleet.running(name).ended.is_set()]
        told += [f"{name} is dead: {self.fleet.running(name).log_tail()[-1500:]}" for name in dead]
        return "\n".join(told)


def is_settled(machine: machines.Machine) -> bool:
    return (
        machine.phase is phases.Phase.ACTIVE
        and machine.health is phases.Health.WELL
        and machine.env.applied == machine.env.desired
    )


async def patiently(
    ask: Callable[[], Awaitable[T]],
    away: tuple[type[errors.Fault], ...] = AWAY,
    *,
    within_s: float = WITHIN_S,
) -> T:
    """What `ask` answers, asked again while who should answer is away."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                return await ask()
            except away:
                await asyncio.sleep(POLL_S)  # it was killed, and nothing tells us when it is back


@contextlib.asynccontextmanager
async def opened(
    folder: pathlib.Path,
    *,
    lease_s: float = LEASE_S,
    step: str = MARK,
    services: Sequence[wiring.ServiceName] = wiring.SERVICES,
    more: Mapping[wiring.ServiceName, Mapping[str, str]] | None = None,
) -> AsyncIterator[Ground]:
    """The fleet, started, with a project; at the end every process and sandbox is gone.

    Args:
        folder: Empty.
        lease_s: Of the services that have runners.
        step: The project's setup step, for `sh -c`.
        services: Those started at once; the gateway has to be one of them.
        more: Settings of single services.
    """
    daemon = daemon_runtime.venv()
    here = runtime.locate(daemon)
    providers: dict[str, host.HostProvider] = {
        one.name: one for one in (bubblewrap.Bubblewrap(folder, here), process.Process(folder, here))
    }
    why_not = await providers["bubblewrap"].available()
    told = collections.defaultdict(dict, {name: dict(given) for name, given in (more or {}).items()})
    for name in RUNNERS:
        told[name] = {"lease_s": str(lease_s)} | told[name]
    settings = wiring.Settings(
        data=folder, gateway_port=0, runtime=daemon, unsafe_process_provider=bool(why_not), more=told
    )
    blueprint = projects.Blueprint(
        setup_steps=[projects.SetupStep(name="leave a mark", command=["sh", "-c", step])]
    )
    async with contextlib.AsyncExitStack() as open_:
        for one in providers.values():
            open_.callback(one.close)
            open_.push_async_callback(_remove_everything, one)
        fleet = await open_.enter_async_context(processes.Fleet(settings, services=services))
        client = await open_.enter_async_context(gateway.Client(fleet.url, fleet.token()))
        project = await client.projects.create(
            "faults", provider="process" if why_not else "bubblewrap", blueprint=blueprint
        )
        ground = Ground(fleet, client, providers, project)
        await ground.set_value(ground.value)
        yield ground


async def _remove_everything(provider: host.HostProvider) -> None:
    for found in await provider.sandboxes():
        await provider.delete(ids.SandboxId(found.sandbox_id))
