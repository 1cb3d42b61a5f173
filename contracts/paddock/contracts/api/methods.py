"""The table of everything the gateway can be asked: name, parameters, result, and who may.

The gateway serves exactly this table and the client is typed by it. A method is added here first.
"""

import dataclasses
import enum
from typing import Any, Final, Generic, TypeVar

from paddock.contracts.api import (
    base,
    env,
    events,
    executions,
    files,
    machines,
    ports,
    projects,
    repositories,
    streams,
    system,
    tokens,
)

ParamsT = TypeVar("ParamsT", bound=base.Params)
ResultT = TypeVar("ResultT", bound=base.Result)


class Needs(enum.StrEnum):
    """What a caller must have."""

    TOKEN = "token"  # noqa: S105 - the word
    """Any valid access token."""
    ADMIN = "admin"
    """A token of an administrator; until tokens have scopes, each is one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Method(Generic[ParamsT, ResultT]):
    """A method of the gateway.

    One without a side effect can be asked again when an answer is lost. `is_streaming` ones need a connection that
    stays: `GET /ws`.
    """

    name: str
    params: type[ParamsT]
    result: type[ResultT]
    needs: Needs = Needs.TOKEN
    has_side_effect: bool = False
    is_streaming: bool = False


SYSTEM_PING: Final = Method("system.ping", base.Nothing, system.Pong)
SYSTEM_INFO: Final = Method("system.info", base.Nothing, system.SystemInfo)

PROJECT_CREATE: Final = Method(
    "project.create", projects.ProjectCreate, projects.Project, has_side_effect=True
)
PROJECT_GET: Final = Method("project.get", projects.ProjectGet, projects.Project)
PROJECT_UPDATE: Final = Method(
    "project.update", projects.ProjectUpdate, projects.Project, has_side_effect=True
)
PROJECT_LIST: Final = Method("project.list", projects.ProjectList, projects.ProjectPage)
PROJECT_DELETE: Final = Method("project.delete", projects.ProjectDelete, base.Done, has_side_effect=True)

MACHINE_CREATE: Final = Method(
    "machine.create", machines.MachineCreate, machines.Machine, has_side_effect=True
)
MACHINE_GET: Final = Method("machine.get", machines.MachineGet, machines.Machine)
MACHINE_LIST: Final = Method("machine.list", machines.MachineList, machines.MachinePage)
MACHINE_DELETE: Final = Method(
    "machine.delete", machines.MachineDelete, machines.Machine, has_side_effect=True
)
MACHINE_RETRY: Final = Method("machine.retry", machines.MachineRetry, machines.Machine, has_side_effect=True)
MACHINE_HISTORY: Final = Method("machine.history", machines.MachineHistory, machines.History)
MACHINE_EXEC: Final = Method("machine.exec", machines.MachineExec, machines.ExecResult, has_side_effect=True)
MACHINE_WRITE_FILE: Final = Method(
    "machine.writeFile", machines.MachineWriteFile, machines.WriteFileResult, has_side_effect=True
)
MACHINE_READ_FILE: Final = Method("machine.readFile", machines.MachineReadFile, machines.ReadFileResult)
MACHINE_LOGS: Final = Method("machine.logs", machines.MachineLogs, machines.Logs)

MACHINE_EXEC_START: Final = Method(
    "machine.execStart", executions.MachineExecStart, executions.Execution, has_side_effect=True
)
MACHINE_EXEC_ATTACH: Final = Method(
    "machine.execAttach", executions.MachineExecAttach, executions.ExecAttached, is_streaming=True
)
MACHINE_EXEC_WRITE: Final = Method(
    "machine.execWrite", executions.MachineExecWrite, executions.ExecWritten, has_side_effect=True
)
MACHINE_EXEC_RESIZE: Final = Method(
    "machine.execResize", executions.MachineExecResize, base.Done, has_side_effect=True
)
MACHINE_EXEC_SIGNAL: Final = Method(
    "machine.execSignal", executions.MachineExecSignal, base.Done, has_side_effect=True
)
MACHINE_EXEC_WAIT: Final = Method("machine.execWait", executions.MachineExecWait, executions.Execution)
MACHINE_EXEC_LIST: Final = Method("machine.execList", executions.MachineExecList, executions.Executions)
MACHINE_EXEC_OUTPUT: Final = Method("machine.execOutput", executions.MachineExecOutput, executions.ExecOutput)
MACHINE_EXEC_SUMMARY: Final = Method(
    "machine.execSummary", executions.MachineExecSummary, executions.ExecSummary
)

MACHINE_FILE_READ: Final = Method(
    "machine.fileRead", files.MachineFileRead, files.FileReading, is_streaming=True
)
MACHINE_FILE_WRITE: Final = Method(
    "machine.fileWrite", files.MachineFileWrite, files.FileWriting, has_side_effect=True, is_streaming=True
)
MACHINE_FILE_COMMIT: Final = Method(
    "machine.fileCommit", files.MachineFileCommit, files.FileInfo, has_side_effect=True
)
MACHINE_FILE_ABORT: Final = Method(
    "machine.fileAbort", files.MachineFileAbort, base.Done, has_side_effect=True
)
MACHINE_FILE_STAT: Final = Method("machine.fileStat", files.MachineFileStat, files.FileInfo)
MACHINE_FILE_LIST: Final = Method("machine.fileList", files.MachineFileList, files.FilePage)
MACHINE_FILE_MKDIR: Final = Method(
    "machine.fileMkdir", files.MachineFileMkdir, files.FileInfo, has_side_effect=True
)
MACHINE_FILE_MOVE: Final = Method(
    "machine.fileMove", files.MachineFileMove, files.FileInfo, has_side_effect=True
)
MACHINE_FILE_REMOVE: Final = Method(
    "machine.fileRemove", files.MachineFileRemove, base.Done, has_side_effect=True
)
MACHINE_FILE_CHMOD: Final = Method(
    "machine.fileChmod", files.MachineFileChmod, files.FileInfo, has_side_effect=True
)
MACHINE_FILE_FIND: Final = Method("machine.fileFind", files.MachineFileFind, files.FilesFound)

MACHINE_PORT_OPEN: Final = Method(
    "machine.portOpen", ports.MachinePortOpen, ports.PortOpened, is_streaming=True
)
MACHINE_PORT_URL: Final = Method("machine.portUrl", ports.MachinePortUrl, ports.PortUrl)
STREAM_CLOSE: Final = Method("stream.close", streams.StreamClose, base.Done, is_streaming=True)

ENV_SET: Final = Method("env.set", env.EnvSet, env.EnvChanged, has_side_effect=True)
ENV_UNSET: Final = Method("env.unset", env.EnvUnset, env.EnvChanged, has_side_effect=True)
ENV_LIST: Final = Method("env.list", env.EnvList, env.EnvVariables)

REPOSITORY_ADD: Final = Method(
    "repository.add", repositories.RepositoryAdd, repositories.Repository, has_side_effect=True
)
REPOSITORY_REMOVE: Final = Method(
    "repository.remove", repositories.RepositoryRemove, base.Done, has_side_effect=True
)
REPOSITORY_LIST: Final = Method("repository.list", repositories.RepositoryList, repositories.Repositories)

TOKEN_CREATE: Final = Method(
    "token.create", tokens.TokenCreate, tokens.NewToken, Needs.ADMIN, has_side_effect=True
)
TOKEN_LIST: Final = Method("token.list", tokens.TokenList, tokens.Tokens, Needs.ADMIN)
TOKEN_REVOKE: Final = Method("token.revoke", tokens.TokenRevoke, base.Done, Needs.ADMIN, has_side_effect=True)

EVENTS_SUBSCRIBE: Final = Method(
    "events.subscribe", events.EventsSubscribe, events.Subscription, is_streaming=True
)
EVENTS_UNSUBSCRIBE: Final = Method(
    "events.unsubscribe", events.EventsUnsubscribe, base.Done, is_streaming=True
)

ALL: Final[tuple[Method[Any, Any], ...]] = (
    SYSTEM_PING, SYSTEM_INFO,
    PROJECT_CREATE, PROJECT_GET, PROJECT_UPDATE, PROJECT_LIST, PROJECT_DELETE,
    MACHINE_CREATE, MACHINE_GET, MACHINE_LIST, MACHINE_DELETE, MACHINE_RETRY, MACHINE_HISTORY, MACHINE_EXEC,
    MACHINE_WRITE_FILE, MACHINE_READ_FILE, MACHINE_LOGS,
    MACHINE_EXEC_START, MACHINE_EXEC_ATTACH, MACHINE_EXEC_WRITE, MACHINE_EXEC_RESIZE, MACHINE_EXEC_SIGNAL,
    MACHINE_EXEC_WAIT, MACHINE_EXEC_LIST, MACHINE_EXEC_OUTPUT, MACHINE_EXEC_SUMMARY,
    MACHINE_FILE_READ, MACHINE_FILE_WRITE, MACHINE_FILE_COMMIT, MACHINE_FILE_ABORT, MACHINE_FILE_STAT,
    MACHINE_FILE_LIST, MACHINE_FILE_MKDIR, MACHINE_FILE_MOVE, MACHINE_FILE_REMOVE, MACHINE_FILE_CHMOD,
    MACHINE_FILE_FIND,
    MACHINE_PORT_OPEN, MACHINE_PORT_URL, STREAM_CLOSE,
    ENV_SET, ENV_UNSET, ENV_LIST,
    REPOSITORY_ADD, REPOSITORY_REMOVE, REPOSITORY_LIST,
    TOKEN_CREATE, TOKEN_LIST, TOKEN_REVOKE,
    EVENTS_SUBSCRIBE, EVENTS_UNSUBSCRIBE,
)  # fmt: skip

BY_NAME: Final = {method.name: method for method in ALL}
