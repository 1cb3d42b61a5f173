"""JSON-RPC 2.0 by its specification, without a transport."""

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.contracts import errors
from paddock.contracts.api import base, methods
from paddock.gateway import auth, jsonrpc

CALL = jsonrpc.Call(auth.Caller("t1", "test", is_admin=True), "req-1")


class Sum(base.Params):
    a: int
    b: int = 0


class Total(base.Result):
    total: int


class Handlers:
    """Adds, refuses, breaks, waits."""

    def __init__(self) -> None:
        self.sums: list[int] = []
        self.gate = asyncio.Event()
        self.running = 0

    async def add(self, params: Sum, _call: jsonrpc.Call) -> Total:
        self.sums.append(params.a + params.b)
        return Total(total=params.a + params.b)

    async def refuse(self, _params: base.Nothing, _call: jsonrpc.Call) -> Total:
        raise errors.Conflict("cannot do it twice", data={"machineId": "m1"}, detail="only for the log")

    async def breaks(self, _params: base.Nothing, _call: jsonrpc.Call) -> Total:
        raise RuntimeError("password=hunter2")

    async def wait(self, _params: base.Nothing, _call: jsonrpc.Call) -> Total:
        self.running += 1
        await self.gate.wait()
        return Total(total=0)

    def dispatcher(self, **more: Any) -> jsonrpc.Dispatcher:
        nothing = base.Nothing
        routes: list[jsonrpc.AnyRoute] = [
            jsonrpc.Route(methods.Method("test.add", Sum, Total, has_side_effect=True), self.add),
            jsonrpc.Route(methods.Method("test.refuse", nothing, Total), self.refuse),
            jsonrpc.Route(methods.Method("test.break", nothing, Total), self.breaks),
            jsonrpc.Route(methods.Method("test.wait", nothing, Total), self.wait),
            jsonrpc.Route(methods.Method("test.admin", nothing, Total, methods.Needs.ADMIN), self.refuse),
        ]
        return jsonrpc.Dispatcher(routes, **more)


async def answer(body: str | bytes, call: jsonrpc.Call = CALL) -> Any:
    raw = body if isinstance(body, bytes) else body.encode()
    answered = await Handlers().dispatcher().answer(raw, call)
    return None if answered.body is None else json.loads(answered.body)


async def code(body: str | bytes) -> tuple[int, Any]:
    response = await answer(body)
    return response["error"]["code"], response["id"]


def request(method: str = "test.add", params: str = '{"a":1}', request_id: str = "1") -> str:
    return f'{{"jsonrpc":"2.0","id":{request_id},"method":"{method}","params":{params}}}'


async def test_a_call_is_answered_with_its_result() -> None:
    assert await answer(request(params='{"a":1,"b":2}')) == {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {"total": 3},
    }


@pytest.mark.parametrize(
    "request_id", ['"a"', "1", "-1", "1.5", "null", '"\\u00e9"', '""', "123456789012345678901234567890"]
)
async def test_an_id_of_any_legal_type_comes_back_as_it_was(request_id: str) -> None:
    answered = await Handlers().dispatcher().answer(request(request_id=request_id).encode(), CALL)

    assert answered.body is not None
    assert answered.body.startswith(b'{"jsonrpc":"2.0","id":' + request_id.encode() + b',"result"')


async def test_a_notification_is_carried_out_and_not_answered() -> None:
    handlers = Handlers()

    answered = await handlers.dispatcher().answer(
        b'{"jsonrpc":"2.0","method":"test.add","params":{"a":4}}', CALL
    )

    assert (answered.body, handlers.sums) == (None, [4])


@pytest.mark.parametrize("method", ["test.none", "test.refuse", "test.break"])
async def test_a_notification_that_fails_is_not_answered_either(method: str) -> None:
    assert await answer(f'{{"jsonrpc":"2.0","method":"{method}"}}') is None


@pytest.mark.parametrize(
    "body",
    ["", "{", "nope", "[1,", '{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":tru}}', b"\xff", b'{"a":"\xff"}', "NaN",
     request() + "x", "\ufeff" + request(), '{"jsonrpc":"2.0","id":1,"method":"test.add","params":{"a":"\\ud800"}}'],
)  # fmt: skip
async def test_what_is_no_json_is_a_parse_error(body: str | bytes) -> None:
    assert (await code(body))[0] == -32700


@pytest.mark.parametrize(
    ("body", "request_id"),
    [
        ("1", None),
        ('"x"', None),
        ("null", None),
        ("{}", None),
        ('{"jsonrpc":"1.0","id":5,"method":"test.add"}', 5),
        ('{"id":5,"method":"test.add"}', 5),
        ('{"jsonrpc":"2.0","id":"x","method":1}', "x"),
        ('{"jsonrpc":"2.0","id":1}', 1),
        ('{"jsonrpc":"2.0","id":true,"method":"test.add"}', None),
        ('{"jsonrpc":"2.0","id":{},"method":"test.add"}', None),
        ('{"jsonrpc":"2.0","id":[1],"method":"test.add"}', None),
        ('{"jsonrpc":"2.0","id":1,"method":"test.add","params":"x"}', 1),
        ('{"jsonrpc":"2.0","id":1,"method":"test.add","params":null}', 1),
        ('{"jsonrpc":"2.0","method":"test.add","params":3}', None),
        ('{"jsonrpc":"2.0","id":1,"method":"test.add","parms":{}}', 1),
        ('{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":7}', 123456789012345678901234567890),
    ],
)
async def test_what_is_no_request_is_refused_with_its_id_if_it_has_one(body: str, request_id: Any) -> None:
    assert await code(body) == (-32600, request_id)


@pytest.mark.parametrize(
    "params", ["[]", "[1,2]", '{"a":"1"}', "{}", '{"a":1,"c":1}', '{"a":1.5}', '{"a":null}']
)
async def test_params_that_do_not_fit_are_invalid_and_say_where(params: str) -> None:
    response = await answer(request(params=params))

    assert response["error"]["code"] == -32602
    assert response["error"]["data"]["problems"]


async def test_a_problem_names_place_and_rule_and_never_the_value() -> None:
    response = await answer(request(params='{"a":"hunter2"}'))

    assert response["error"]["data"]["problems"] == [{"path": "a", "problem": "must be a whole number"}]
    assert "hunter2" not in json.dumps(response)


async def test_an_unknown_method_is_not_found() -> None:
    assert await code(request("test.none")) == (-32601, 1)


async def test_a_method_for_administrators_looks_missing_to_others() -> None:
    other = jsonrpc.Call(auth.Caller("t2", "other", is_admin=False), "req-2")

    forbidden = await answer(request("test.admin", "{}"), other)
    missing = await answer(request("test.gone", "{}"), other)

    assert json.dumps(forbidden).replace("admin", "gone") == json.dumps(missing)


async def test_a_fault_is_answered_with_code_kind_and_data_and_without_its_detail() -> None:
    response = await answer(request("test.refuse", "{}"))

    assert response["error"] == {
        "code": 3002,
        "message": "cannot do it twice",
        "data": {"kind": "conflict", "retryable": False, "machineId": "m1"},
    }


async def test_a_bug_is_internal_with_a_request_id_and_no_text() -> None:
    response = await answer(request("test.break", "{}"))

    assert response["error"]["code"] == -32603
    assert response["error"]["data"]["requestId"] == "req-1"
    assert "hunter2" not in json.dumps(response)


async def test_a_batch_answers_every_call_and_no_notification() -> None:
    body = (
        f"[{request(request_id='1')},"
        '{"jsonrpc":"2.0","method":"test.add","params":{"a":5}},'
        f'{request("test.none", request_id="2")},7,{{"foo":1}},[]]'
    )

    responses = await answer(body)

    assert [(one["id"], one.get("error", {}).get("code")) for one in responses] == [
        (1, None), (2, -32601), (None, -32600), (None, -32600), (None, -32600),
    ]  # fmt: skip


async def test_a_batch_of_notifications_is_not_answered() -> None:
    assert await answer('[{"jsonrpc":"2.0","method":"test.add","params":{"a":5}}]') is None


async def test_an_empty_batch_is_no_request() -> None:
    assert await code(" [ ] ") == (-32600, None)


async def test_a_batch_with_a_syntax_error_carries_out_nothing() -> None:
    handlers = Handlers()

    answered = await handlers.dispatcher().answer(f"[{request()}, tru]".encode(), CALL)

    assert isinstance(answered.fault, errors.ParseError)
    assert handlers.sums == []


async def test_a_batch_that_is_too_long_carries_out_nothing() -> None:
    handlers = Handlers()
    body = "[" + ",".join([request()] * (jsonrpc.BATCH_MAX + 1)) + "]"

    answered = await handlers.dispatcher().answer(body.encode(), CALL)

    assert isinstance(answered.fault, errors.PayloadTooLarge)
    assert handlers.sums == []


@pytest.mark.parametrize("opening", ["[", '{"a":', "[["])
async def test_nesting_is_limited_before_anything_recurses(opening: str) -> None:
    assert (await code(opening * 100_000))[0] == errors.PayloadTooLarge.code


async def test_brackets_in_texts_are_no_nesting() -> None:
    body = request("test.none", json.dumps({"text": "[{" * 5000 + '\\"'}))

    assert (await code(body))[0] == -32601


async def test_texts_without_an_end_are_read_once() -> None:
    # Read anew from each of its quotes, 80 kB cost many seconds and 2 MB hours, with everybody waiting.
    before_s = time.process_time()
    answered = await code('["' + '\\"[]' * 20_000)

    assert answered[0] == errors.ParseError.code
    assert time.process_time() - before_s < 2


async def test_one_call_too_many_is_refused_and_room_comes_back() -> None:
    handlers = Handlers()
    dispatcher = handlers.dispatcher(in_flight_max=1)
    waiting = request("test.wait", "{}").encode()

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(dispatcher.answer(waiting, CALL))
        await asyncio.sleep(0)
        refused = await dispatcher.answer(waiting, CALL)
        handlers.gate.set()
        answered = await first
    after = await dispatcher.answer(waiting, CALL)

    assert isinstance(refused.fault, errors.TooManyInFlight)
    assert answered.fault is None
    assert after.fault is None


async def test_draining_finishes_what_was_accepted_and_refuses_what_is_new() -> None:
    handlers = Handlers()
    dispatcher = handlers.dispatcher()
    waiting = request("test.wait", "{}").encode()

    async with asyncio.TaskGroup() as tasks:
        accepted = tasks.create_task(dispatcher.answer(waiting, CALL))
        await asyncio.sleep(0)
        drained = tasks.create_task(dispatcher.drain(5.0))
        await asyncio.sleep(0)
        refused = await dispatcher.answer(waiting, CALL)
        is_waiting = not drained.done()
        handlers.gate.set()

    assert is_waiting
    assert accepted.result().fault is None
    assert isinstance(refused.fault, errors.ShuttingDown)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
REQUESTS = st.fixed_dictionaries(
    {
        "jsonrpc": st.just("2.0") | JSON,
        "method": st.sampled_from(["test.add", "test.refuse", "test.break", "x"]) | JSON,
    },
    optional={"id": JSON, "params": JSON | st.fixed_dictionaries({"a": JSON, "b": JSON}), "more": JSON},
)


@settings(max_examples=100, deadline=None)
@given(st.one_of(JSON, REQUESTS, st.lists(REQUESTS, max_size=3)).map(json.dumps) | st.text() | st.binary())
async def test_whatever_comes_is_answered_with_valid_json_rpc_or_nothing(body: str | bytes) -> None:
    raw = body if isinstance(body, bytes) else body.encode(errors="surrogatepass")

    answered = await Handlers().dispatcher().answer(raw, CALL)

    if answered.body is not None:
        responses = json.loads(answered.body)
        for response in responses if isinstance(responses, list) else [responses]:
            assert response["jsonrpc"] == "2.0"
            assert ("result" in response) != ("error" in response)
            assert "Traceback" not in json.dumps(response)
