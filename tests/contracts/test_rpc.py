import msgspec
import pytest

from paddock.contracts import daemon, executions, files, ports, rpc, services

METHODS = [
    value
    for module in (daemon, executions, files, ports, services, rpc)
    for value in vars(module).values()
    if isinstance(value, rpc.Method | rpc.ChannelMethod)
]


def test_every_method_has_a_name_of_its_own_in_two_parts() -> None:
    names = [method.name for method in METHODS]

    assert len(set(names)) == len(names)
    assert all(len(name.split(".")) == 2 for name in names)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_parameters_refuse_what_they_do_not_know_and_results_pass_it_over(method: rpc.Method) -> None:  # type: ignore[type-arg]
    assert method.params.__struct_config__.forbid_unknown_fields
    assert not method.result.__struct_config__.forbid_unknown_fields


def test_a_request_is_camel_case_on_the_wire_and_leaves_out_what_is_not_set() -> None:
    request = rpc.Request(method="daemon.ping", id="1", deadline_ms=5, call_id="c")

    assert msgspec.json.decode(msgspec.json.encode(request)) == {
        "jsonrpc": "2.0",
        "method": "daemon.ping",
        "id": "1",
        "deadlineMs": 5,
        "callId": "c",
    }
    assert msgspec.json.decode(msgspec.json.encode(request), type=rpc.Request) == request


def test_another_version_is_no_request() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"jsonrpc":"1.0","method":"x"}', type=rpc.Request)


@pytest.mark.parametrize(
    "response",
    [
        rpc.Response(id="1", result=msgspec.Raw(b"{}")),
        rpc.Response(id="1", error=rpc.ErrorBody(code=3001, message="no", data={"a": 1})),
        rpc.Response(id="1", running=rpc.Running(call_id="c")),
        rpc.Response(id="1", stream=rpc.Stream(size_bytes=9, chunks=1, sha256="x")),
    ],
)
def test_a_response_carries_exactly_what_it_was_given(response: rpc.Response) -> None:
    members = msgspec.json.decode(msgspec.json.encode(response))

    assert len({"result", "error", "running", "stream"} & set(members)) == 1


@pytest.mark.parametrize("command", [b"[]", b'"true"', b"[1]"])
def test_a_command_is_a_list_of_texts_and_not_empty(command: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"command":' + command + b"}", type=daemon.ExecCommandParams)


def test_limits_leave_room_for_each_other() -> None:
    assert rpc.CHUNK_BYTES < rpc.REPLY_BYTES_MAX < rpc.REQUEST_BYTES_MAX < 1024 * 1024
    assert rpc.HELD_REPLY_S < 60
