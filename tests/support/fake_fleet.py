"""What the fake gateway knows: projects, machines, variables and events, in memory.

Its clock moves only when it is told to, so durations in tests are exact.
"""

import base64
import collections
import hashlib
from collections.abc import Callable
from typing import Any

from paddock.contracts import errors, events, ids, phases
from paddock.contracts.api import base, env, machines, projects, repositories, system, tokens
from tests.support import fake_tools

START_MS = 1_800_000_000_000
WAY_TO_ACTIVE = (
    (phases.Phase.PROVISIONING, events.MACHINE_PROVISIONING, 5),
    (phases.Phase.BOOTING, events.MACHINE_PROVISIONED, 200),
    (phases.Phase.SETTING_UP, events.MACHINE_DAEMON_STATUS_REPORTED, 300),
    (phases.Phase.PROBING, events.MACHINE_SETUP_PUSHED, 1500),
    (phases.Phase.ACTIVE, events.MACHINE_ACTIVATED, 12),
)
"""Each phase, its event, and the milliseconds before it."""


def exec_result(
    exit_code: int | None = 0, stdout: str = "", stderr: str = "", **more: Any
) -> machines.ExecResult:
    return machines.ExecResult(exit_code=exit_code, stdout=stdout, stderr=stderr, **more)


class FakeFleet(fake_tools.FakeTools):
    """Answers each method of the contract by what it holds; `on_event` is told of each event."""

    def __init__(self, on_event: Callable[[], None]) -> None:
        super().__init__()
        self.now_ms = START_MS
        self.events: list[bytes] = []
        self.projects: dict[str, projects.Project] = {}
        self.machines: dict[str, machines.Machine] = {}
        self.moves: dict[str, list[machines.HistoryMove]] = collections.defaultdict(list)
        self.variables: dict[tuple[str, str | None, str | None], dict[str, str]] = collections.defaultdict(
            dict
        )
        self.repositories: dict[str, repositories.Repository] = {}
        self.secrets: dict[str, str | None] = {}
        self.tokens: dict[str, tokens.Token] = {}
        self.commands_run: list[machines.MachineExec] = []
        self.exec: Callable[[machines.MachineExec], machines.ExecResult] = lambda asked: exec_result()
        self.on_created: Callable[[str], Any] = lambda machine: None
        self.on_deleting: Callable[[str], Any] = lambda machine: None
        self.log_text = "supervise: started\ndaemon: ready\n"
        self._by_client_token: dict[str, str] = {}
        self._by_call_id: dict[str, Any] = {}
        self._on_event = on_event

    def moment(self) -> str:
        return events.time_text(self.now_ms)

    def happen(
        self, event_type: str, *, project: str, machine: str = "", sequence: int = 0, **data: Any
    ) -> None:
        """One event, to everybody who follows."""
        event = events.new(
            event_type,
            event_id=f"ev{len(self.events) + 1}",
            at_ms=self.now_ms,
            project=ids.ProjectId(project),
            machine=ids.MachineId(machine) if machine else None,
            sequence=sequence,
            data=data,
        )
        self.events.append(events.encode(event))
        self._on_event()

    def move(
        self,
        machine_id: str,
        phase: phases.Phase,
        event: str,
        *,
        after_ms: int = 100,
        reason: machines.Reason | None = None,
        is_told: bool = True,
    ) -> machines.Machine:
        """Move a machine on, `after_ms` later on our clock; without an event when `is_told` is False."""
        self.now_ms += after_ms
        known, moves = self.machines[machine_id], self.moves[machine_id]
        generation = known.generation + (event == events.MACHINE_RETRY_REQUESTED)
        self.machines[machine_id] = known.model_copy(
            update={"phase": phase, "phase_since": self.moment(), "reason": reason, "generation": generation}
        )
        moves.append(
            machines.HistoryMove(
                sequence=len(moves) + 1,
                generation=generation,
                phase=phase,
                at=self.moment(),
                after_ms=after_ms if moves else None,
                actor="fake",
                reason=reason,
            )
        )
        if is_told:
            facts = {"phase": phase, "generation": generation}
            self.happen(event, project=known.project_id, machine=machine_id, sequence=len(moves), **facts)
        return self.machines[machine_id]

    def to_active(self, machine_id: str, *, is_told: bool = True) -> None:
        """The whole way of a machine that was created."""
        for phase, event, after_ms in WAY_TO_ACTIVE:
            self.move(machine_id, phase, event, after_ms=after_ms, is_told=is_told)

    def fail(self, machine_id: str, message: str, *, log_tail: str = "") -> None:
        reason = machines.Reason(stage="setup", kind="repository_failed", message=message, log_tail=log_tail)
        self.move(machine_id, phases.Phase.FAILED, events.MACHINE_FAILED, after_ms=700, reason=reason)

    def add_project(self, name: str = "demo") -> projects.Project:
        return self._project_create(projects.ProjectCreate(name=name))

    def add_machine(self, project_id: str, name: str = "") -> machines.Machine:
        return self._machine_create(machines.MachineCreate(project_id=project_id, name=name or None))

    def answer(self, method: str, params: Any) -> base.Result:
        """What the gateway answers.

        Raises:
            errors.Fault: It refuses.
        """
        noun, _, verb = method.partition(".")
        snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in verb)
        result: base.Result = getattr(self, f"_{noun}_{snake}")(params)
        return result

    def _system_ping(self, _: base.Nothing) -> system.Pong:
        return system.Pong()

    def _system_info(self, _: base.Nothing) -> system.SystemInfo:
        return system.SystemInfo(version="0.0.0", now_ms=self.now_ms, methods=["system.info"])

    def _project_create(self, asked: projects.ProjectCreate) -> projects.Project:
        made = projects.Project(
            id=f"p{len(self.projects) + 1}",
            name=asked.name,
            provider=asked.provider or "bubblewrap",
            image=asked.image,
            blueprint=asked.blueprint,
            created_at=self.moment(),
            updated_at=self.moment(),
        )
        self.projects[made.id] = made
        return made

    def _project_get(self, asked: projects.ProjectGet) -> projects.Project:
        return self._project(asked.project_id)

    def _project_update(self, asked: projects.ProjectUpdate) -> projects.Project:
        changed = {name: value for name, value in asked if value is not None and name != "project_id"}
        self.projects[asked.project_id] = self._project(asked.project_id).model_copy(update=changed)
        return self.projects[asked.project_id]

    def _project_list(self, asked: projects.ProjectList) -> projects.ProjectPage:
        found, cursor = _page(list(self.projects.values()), asked.cursor, asked.limit)
        return projects.ProjectPage(projects=found, next_cursor=cursor)

    def _project_delete(self, asked: projects.ProjectDelete) -> base.Done:
        if any(one.project_id == asked.project_id for one in self.machines.values()):
            raise errors.InUse("cannot delete the project: it has machines")
        del self.projects[self._project(asked.project_id).id]
        return base.Done()

    def _machine_create(self, asked: machines.MachineCreate) -> machines.Machine:
        self._project(asked.project_id)
        if asked.client_token is not None and (known := self._by_client_token.get(asked.client_token)):
            return self.machines[known]
        machine_id = f"m{len(self.machines) + 1}"
        self.machines[machine_id] = machines.Machine(
            id=machine_id,
            project_id=asked.project_id,
            name=asked.name or machine_id,
            phase=phases.Phase.CREATED,
            phase_since=self.moment(),
            generation=1,
            connection=phases.Connection.NEVER,
            health=phases.Health.UNKNOWN,
            env=machines.EnvVersions(desired=1, applied=0),
            labels=asked.labels,
            created_at=self.moment(),
            provider="bubblewrap",
            sandbox_id=f"{machine_id}-1",
        )
        self.variables["machine", None, machine_id] |= asked.env
        made = self.move(machine_id, phases.Phase.CREATED, events.MACHINE_CREATED, after_ms=0)
        if asked.client_token is not None:
            self._by_client_token[asked.client_token] = machine_id
        self.on_created(machine_id)
        return made

    def _machine_get(self, asked: machines.MachineGet) -> machines.Machine:
        return self._machine(asked.machine_id)

    def _machine_list(self, asked: machines.MachineList) -> machines.MachinePage:
        fitting = [
            one
            for one in self.machines.values()
            if asked.project_id in {None, one.project_id} and (not asked.phases or one.phase in asked.phases)
        ]
        found, cursor = _page(fitting, asked.cursor, asked.limit)
        return machines.MachinePage(machines=found, next_cursor=cursor)

    def _machine_delete(self, asked: machines.MachineDelete) -> machines.Machine:
        self._machine(asked.machine_id)
        deleting = self.move(asked.machine_id, phases.Phase.DELETING, events.MACHINE_DELETE_REQUESTED)
        self.on_deleting(asked.machine_id)
        return deleting

    def _machine_retry(self, asked: machines.MachineRetry) -> machines.Machine:
        if self._machine(asked.machine_id).phase is not phases.Phase.FAILED:
            raise errors.WrongPhase(f"cannot retry machine {asked.machine_id}: it has not failed")
        made = self.move(asked.machine_id, phases.Phase.CREATED, events.MACHINE_RETRY_REQUESTED)
        self.on_created(asked.machine_id)
        return made

    def _machine_history(self, asked: machines.MachineHistory) -> machines.History:
        self._machine(asked.machine_id)
        run = machines.HistoryRun(
            generation=1,
            lane=phases.Lane.PROVIDER,
            stage=phases.Stage.PROVISION,
            run=1,
            attempts=0,
            owner="provisioner-1",
            queued_at=self.moment(),
            started_at=self.moment(),
            finished_at=self.moment(),
            took_ms=205,
            outcome="finished",
        )
        moves = self.moves[asked.machine_id]
        return machines.History(machine_id=asked.machine_id, moves=moves, runs=[run], sandboxes=[])

    def _machine_exec(self, asked: machines.MachineExec) -> machines.ExecResult:
        self._machine(asked.machine_id)
        return self._once(asked.call_id, lambda: self._run(asked))

    def _machine_write_file(self, asked: machines.MachineWriteFile) -> machines.WriteFileResult:
        content = base64.b64decode(asked.content) if asked.encoding == "base64" else asked.content.encode()
        self.files[asked.path] = (content, asked.mode)
        digest = hashlib.sha256(content).hexdigest()
        return machines.WriteFileResult(path=asked.path, bytes_written=len(content), sha256=digest)

    def _machine_read_file(self, asked: machines.MachineReadFile) -> machines.ReadFileResult:
        if asked.path not in self.files:
            raise errors.NoSuchPath(f"cannot read {asked.path}: it does not exist")
        whole, mode = self.files[asked.path]
        part = (
            whole[asked.offset :]
            if asked.length is None
            else whole[asked.offset : asked.offset + asked.length]
        )
        try:
            text, encoding = part.decode(), "utf-8"
        except UnicodeDecodeError:
            text, encoding = base64.b64encode(part).decode(), "base64"
        return machines.ReadFileResult.model_validate(
            {
                "path": asked.path,
                "size": len(whole),
                "sha256": hashlib.sha256(whole).hexdigest(),
                "mode": mode,
                "offset": asked.offset,
                "content": text,
                "encoding": encoding,
            }
        )

    def _machine_logs(self, asked: machines.MachineLogs) -> machines.Logs:
        text = self.log_text[-asked.tail_bytes :]
        return machines.Logs(sandbox_id=f"{asked.machine_id}-1", text=text, size_bytes=len(self.log_text))

    def _env_set(self, asked: env.EnvSet) -> env.EnvChanged:
        variables = self.variables[asked.scope.value, asked.project_id, asked.machine_id]
        names = sorted(name for name, value in asked.variables.items() if variables.get(name) != value)
        variables |= asked.variables
        return env.EnvChanged(names=names, machines=len(self.machines))

    def _env_unset(self, asked: env.EnvUnset) -> env.EnvChanged:
        variables = self.variables[asked.scope.value, asked.project_id, asked.machine_id]
        names = sorted(name for name in asked.names if variables.pop(name, None) is not None)
        return env.EnvChanged(names=names, machines=len(self.machines))

    def _env_list(self, asked: env.EnvList) -> env.EnvVariables:
        names = sorted(self.variables[asked.scope.value, asked.project_id, asked.machine_id])
        return env.EnvVariables(
            variables=[
                env.EnvVariable(
                    name=name, scope=asked.scope, version=1, updated_at=self.moment(), updated_by="admin"
                )
                for name in names
            ]
        )

    def _repository_add(self, asked: repositories.RepositoryAdd) -> repositories.Repository:
        added = repositories.Repository(
            id=f"r{len(self.repositories) + 1}",
            project_id=asked.project_id,
            url=asked.url,
            branch=asked.branch,
            path=asked.path,
            has_secret=asked.secret is not None,
            created_at=self.moment(),
        )
        self.repositories[added.id], self.secrets[added.id] = added, asked.secret
        return added

    def _repository_remove(self, asked: repositories.RepositoryRemove) -> base.Done:
        if self.repositories.pop(asked.repository_id, None) is None:
            raise errors.NotFound(f"cannot find repository {asked.repository_id}")
        return base.Done()

    def _repository_list(self, asked: repositories.RepositoryList) -> repositories.Repositories:
        found = [one for one in self.repositories.values() if one.project_id == asked.project_id]
        return repositories.Repositories(repositories=found)

    def _token_create(self, asked: tokens.TokenCreate) -> tokens.NewToken:
        made = tokens.Token(
            id=f"t{len(self.tokens) + 1}",
            name=asked.name,
            created_at=self.moment(),
            expires_at=None if asked.ttl_s is None else events.time_text(self.now_ms + asked.ttl_s * 1000),
        )
        self.tokens[made.id] = made
        return tokens.NewToken(token=made, text=f"pdk_{made.id}_secret")

    def _token_list(self, _: tokens.TokenList) -> tokens.Tokens:
        return tokens.Tokens(tokens=list(self.tokens.values()))

    def _token_revoke(self, asked: tokens.TokenRevoke) -> base.Done:
        if asked.token_id not in self.tokens:
            raise errors.NotFound(f"cannot find token {asked.token_id}")
        self.tokens[asked.token_id] = self.tokens[asked.token_id].model_copy(
            update={"revoked_at": self.moment()}
        )
        return base.Done()

    def _project(self, project_id: str) -> projects.Project:
        if project_id not in self.projects:
            raise errors.NotFound(f"cannot find project {project_id}")
        return self.projects[project_id]

    def _machine(self, machine_id: str) -> machines.Machine:
        if machine_id not in self.machines:
            raise errors.NotFound(f"cannot find machine {machine_id}")
        return self.machines[machine_id]

    def _run(self, asked: machines.MachineExec) -> machines.ExecResult:
        self.commands_run.append(asked)
        return self.exec(asked)

    def _once(self, call_id: str | None, act: Callable[[], machines.ExecResult]) -> machines.ExecResult:
        if call_id is None:
            return act()
        if call_id not in self._by_call_id:
            self._by_call_id[call_id] = act()
        known: machines.ExecResult = self._by_call_id[call_id]
        return known


def _page(found: list[Any], cursor: str | None, limit: int) -> tuple[list[Any], str | None]:
    begin = int(cursor or 0)
    more = begin + limit < len(found)
    return found[begin : begin + limit], str(begin + limit) if more else None
