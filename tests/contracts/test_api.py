"""The gateway's methods: names, forms on the wire, and what is refused before anything is looked up."""

import inspect
import json
import types
import typing
from typing import Any

import msgspec
import pydantic
import pytest

from paddock.contracts import daemon, errors
from paddock.contracts import executions as asked_executions
from paddock.contracts import files as asked_files
from paddock.contracts.api import (
    base,
    env,
    events,
    executions,
    files,
    machines,
    methods,
    ports,
    projects,
    repositories,
    streams,
    system,
    tokens,
)

NOUNS = (
    base, env, events, executions, files, machines, ports, projects, repositories, streams, system, tokens,
)  # fmt: skip
MODELS = [
    value
    for noun in NOUNS
    for value in vars(noun).values()
    if inspect.isclass(value) and issubclass(value, pydantic.BaseModel) and value.__module__ == noun.__name__
]


def test_every_method_has_a_name_of_its_own_under_its_noun() -> None:
    assert len(methods.BY_NAME) == len(methods.ALL)
    assert all(len(name.split(".")) == 2 for name in methods.BY_NAME)


def test_every_declared_method_is_in_the_table() -> None:
    declared = [value for value in vars(methods).values() if isinstance(value, methods.Method)]

    assert set(declared) == set(methods.ALL)


def test_only_tokens_need_an_administrator() -> None:
    admins = {method.name for method in methods.ALL if method.needs is methods.Needs.ADMIN}

    assert admins == {"token.create", "token.list", "token.revoke"}


@pytest.mark.parametrize("method", methods.ALL, ids=lambda method: method.name)
def test_what_is_asked_refuses_unknown_members_and_what_is_answered_passes_them_over(method: Any) -> None:
    assert issubclass(method.params, base.Params)
    assert issubclass(method.result, base.Result)
    assert method.params.model_config["extra"] == "forbid"
    assert method.result.model_config["extra"] == "ignore"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_members_are_camel_case_and_models_say_what_they_are(model: type[pydantic.BaseModel]) -> None:
    aliases = [field.alias or name for name, field in model.model_fields.items()]

    assert (model.__doc__ or "").strip().endswith((".", "…"))
    assert all("_" not in alias and alias[0].islower() for alias in aliases)


@pytest.mark.parametrize("method", methods.ALL, ids=lambda method: method.name)
def test_every_method_has_a_schema_to_publish(method: Any) -> None:
    asked = method.params.model_json_schema(by_alias=True)
    answered = method.result.model_json_schema(by_alias=True, mode="serialization")

    assert asked["additionalProperties"] is False
    assert asked["type"] == answered["type"] == "object"


def test_results_of_calls_have_what_the_daemon_answers() -> None:
    pairs: list[tuple[type[msgspec.Struct], type[base.Result]]] = [
        (daemon.ExecCommandResult, machines.ExecResult),
        (daemon.WriteFileResult, machines.WriteFileResult),
        (daemon.ReadFileResult, machines.ReadFileResult),
    ]

    for theirs, ours in pairs:
        assert set(theirs.__struct_fields__) == set(ours.model_fields)


def test_what_is_said_of_commands_and_files_is_what_the_daemon_answers() -> None:
    pairs: list[tuple[type[msgspec.Struct], type[base.Result]]] = [
        (asked_executions.Execution, executions.Execution),
        (asked_executions.OutputResult, executions.ExecOutput),
        (asked_executions.SummaryResult, executions.ExecSummary),
        (asked_executions.ListResult, executions.Executions),
        (asked_executions.WriteResult, executions.ExecWritten),
        (asked_files.FileInfo, files.FileInfo),
        (asked_files.ReadEnd, files.FileRead),
        (asked_files.ListResult, files.FilePage),
        (asked_files.FindResult, files.FilesFound),
    ]

    for theirs, ours in pairs:
        said = {name.removesuffix("_ms") for name in theirs.__struct_fields__}
        assert said == set(ours.model_fields)


def test_values_of_variables_are_in_no_result() -> None:
    shown = {name for model in MODELS if issubclass(model, base.Result) for name in model.model_fields}

    assert not shown & {"value", "variables_values", "secret", "secret_hash", "password"}
    assert set(env.EnvVariable.model_fields) == {"name", "scope", "version", "updated_at", "updated_by"}


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("machine.get", {"machineId": "M 1"}),
    ("machine.get", {"machineId": "*"}),
    ("machine.get", {"machineId": "m1", "unknown": 1}),
    ("machine.get", {"machine_id": "m1", "machineId": "m1"}),
    ("machine.get", {}),
    ("machine.create", {"projectId": "p1", "waitS": 61}),
    ("machine.create", {"projectId": "p1", "waitS": "1"}),
    ("machine.create", {"projectId": "p1", "env": {"A-B": "x"}}),
    ("machine.create", {"projectId": "p1", "env": {"1A": "x"}}),
    ("machine.create", {"projectId": "p1", "env": {"": "x"}}),
    ("machine.create", {"projectId": "p1", "env": {"A": "x\x00"}}),
    ("machine.create", {"projectId": "p1", "env": {"A\n": "x"}}),
    ("machine.create", {"projectId": "p1", "clientToken": "a b"}),
    ("machine.create", {"projectId": "p1", "labels": {"a b": "x"}}),
    ("machine.create", {"projectId": "p1", "name": "a\nb"}),
    ("machine.list", {"limit": 0}),
    ("machine.list", {"limit": 201}),
    ("machine.list", {"phases": ["nope"]}),
    ("machine.list", {"phases": []}),
    ("machine.exec", {"machineId": "m1", "command": []}),
    ("machine.exec", {"machineId": "m1", "command": [""]}),
    ("machine.exec", {"machineId": "m1", "command": "true"}),
    ("machine.exec", {"machineId": "m1", "command": ["a\x00b"]}),
    ("machine.exec", {"machineId": "m1", "command": ["a"], "cwd": "\x00"}),
    ("machine.exec", {"machineId": "m1", "command": ["a"], "timeoutS": 0}),
    ("machine.exec", {"machineId": "m1", "command": ["a"], "timeoutS": 1e9}),
    ("machine.exec", {"machineId": "m1", "command": ["a"], "callId": "a b"}),
    ("machine.writeFile", {"machineId": "m1", "path": "", "content": ""}),
    ("machine.writeFile", {"machineId": "m1", "path": "a\x00", "content": ""}),
    ("machine.writeFile", {"machineId": "m1", "path": "a", "content": "", "mode": 0o10000}),
    ("machine.writeFile", {"machineId": "m1", "path": "a", "content": "", "mode": "0644"}),
    ("machine.writeFile", {"machineId": "m1", "path": "a", "content": "", "encoding": "latin-1"}),
    ("machine.readFile", {"machineId": "m1", "path": "a", "offset": -1}),
    ("machine.logs", {"machineId": "m1", "tailBytes": 0}),
    ("env.set", {"scope": "project", "variables": {"A": "1"}}),
    ("env.set", {"scope": "platform", "projectId": "p1", "variables": {"A": "1"}}),
    ("env.set", {"scope": "machine", "projectId": "p1", "machineId": "m1", "variables": {"A": "1"}}),
    ("env.set", {"scope": "everywhere", "variables": {"A": "1"}}),
    ("env.set", {"scope": "platform", "variables": {}}),
    ("env.set", {"scope": "platform", "variables": {"A": None}}),
    ("env.unset", {"scope": "platform", "names": ["A B"]}),
    ("project.create", {"name": ""}),
    ("project.create", {"name": "x" * 101}),
    ("project.create", {"name": "x", "provider": "No Such"}),
    ("project.create", {"name": "x", "blueprint": {"setupSteps": [{"command": []}]}}),
    ("project.create", {"name": "x", "blueprint": {"setupSteps": [{"command": ["a"], "timeoutS": 1e6}]}}),
    ("project.create", {"name": "x", "blueprint": {"probes": [{"kind": "exec"}]}}),
    ("project.create", {"name": "x", "blueprint": {"probes": [{"kind": "dance"}]}}),
    ("project.create", {"name": "x", "blueprint": {"probes": [{"kind": "rpc", "command": ["a"]}]}}),
    ("repository.add", {"projectId": "p1", "url": "ext::sh", "path": "x"}),
    ("repository.add", {"projectId": "p1", "url": "--upload-pack=x", "path": "x"}),
    ("repository.add", {"projectId": "p1", "url": "https://a.b/c", "path": "../x"}),
    ("repository.add", {"projectId": "p1", "url": "https://a.b/c", "path": "x", "branch": "-x"}),
    ("repository.add", {"projectId": "p1", "url": "https://a.b/c", "path": "x", "secret": "a\nb"}),
    ("token.create", {"name": "x", "ttlS": 0}),
    ("token.create", {"name": "x", "ttlS": True}),
    ("events.subscribe", {"types": ["machine.danced"]}),
    ("events.subscribe", {"cursor": "5"}),
]


@pytest.mark.parametrize(("name", "params"), REFUSED, ids=lambda value: json.dumps(value, default=str)[:60])
def test_bad_parameters_are_refused(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        methods.BY_NAME[name].params.model_validate_json(json.dumps(params))


def test_a_client_may_write_python_names_and_send_camel_case() -> None:
    asked = machines.MachineExec(machine_id="m1", command=["true"], timeout_s=5)

    sent = json.loads(asked.model_dump_json(by_alias=True, exclude_defaults=True))

    assert sent == {"machineId": "m1", "command": ["true"], "timeoutS": 5.0}
    assert machines.MachineExec.model_validate_json(json.dumps(sent)) == asked


def test_a_cursor_comes_apart_as_it_was_put_together() -> None:
    assert events.split_cursor(events.cursor_text("1abz", 12)) == ("1abz", 12)


@pytest.mark.parametrize("text", ["", "1", "-1", "a-", "A-1", "a-b", "a-1\n"])
def test_nothing_else_is_a_cursor(text: str) -> None:
    with pytest.raises(errors.InvalidParams):
        events.split_cursor(text)


def test_no_parameter_has_a_type_that_takes_anything() -> None:
    """A member typed Any would let nested input of any shape in."""
    loose = [
        f"{model.__name__}.{name}"
        for model in MODELS
        if issubclass(model, base.Params)
        for name, field in model.model_fields.items()
        if Any in flattened(field.annotation)
    ]

    assert loose == []


def flattened(annotation: Any) -> list[Any]:
    parts = typing.get_args(annotation)
    if isinstance(annotation, types.UnionType) or parts:
        return [annotation, *(inner for part in parts for inner in flattened(part))]
    return [annotation]
