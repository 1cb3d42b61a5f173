"""JSON-RPC 2.0: from the bytes of a request to the bytes of its answer.

Complete: calls, notifications, batches, every standard error, ids of any legal type given back as they came. Whatever
arrives, there is an answer or nothing, never an exception: expected failures leave with their code, bugs as `internal`
with a request id. It knows no transport and no method; `methods` has the table it serves.
"""

import asyncio
import dataclasses
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec
import pydantic

from paddock.bus import logs, outcomes
from paddock.contracts import errors
from paddock.contracts.api import base, methods
from paddock.gateway import auth, problems, session

log = logs.get(__name__)

BATCH_MAX: Final = 100
"""Calls in one batch."""
BATCH_AT_ONCE: Final = 8
"""Calls of one batch carried out at the same time; one batch does not crowd out everybody else."""
DEPTH_MAX: Final = 64
"""Nesting of one body; no method needs a tenth of it."""
IN_FLIGHT_MAX: Final = 2048
_SHOWN_CHARS_MAX: Final = 80

ParamsT = TypeVar("ParamsT", bound=base.Params)
ResultT = TypeVar("ResultT", bound=base.Result)

_Session = session.Session
_NULL: Final = b"null"
_SPACE: Final = b" \t\r\n"
# A string may lack its end: looking for it anew at each quote would cost the square of the body.
_STRING_OR_BRACKET: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """Who asks, and over what. `session` is there on connections that stay."""

    caller: auth.Caller
    request_id: str
    session: _Session | None = None

    def staying(self) -> _Session:
        """The connection that stays.

        Raises:
            errors.InvalidRequest: It was asked over one that does not.
        """
        if self.session is None:
            raise errors.InvalidRequest("cannot do this here: it needs the connection of GET /ws")
        return self.session


@dataclasses.dataclass(frozen=True, slots=True)
class Route(Generic[ParamsT, ResultT]):
    """A method and what carries it out."""

    method: methods.Method[ParamsT, ResultT]
    work: Callable[[ParamsT, Call], Awaitable[ResultT]]


AnyRoute = Route[Any, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What to send back: nothing when only notifications came. `fault` is set when one error is the whole answer."""

    body: bytes | None
    fault: errors.Fault | None = None


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    jsonrpc: Literal["2.0"]
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")
    id: msgspec.Raw = msgspec.Raw(b"")


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_batch = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode
_decode_id = msgspec.json.Decoder(str | int | float | None).decode
_encode = msgspec.json.Encoder().encode


class Dispatcher:
    """Carries out what is asked, by the table of routes."""

    def __init__(self, routes: Iterable[AnyRoute], *, in_flight_max: int = IN_FLIGHT_MAX) -> None:
        self._routes = {route.method.name: route for route in routes}
        self._in_flight_max = in_flight_max
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_draining = False

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return self._in_flight

    async def answer(self, body: bytes, call: Call) -> Answer:
        """The answer to one body: a request, a notification or a batch of them.

        Cancellation: what is under way is cancelled and nothing is answered.
        """
        try:
            _check_text(body)
        except errors.Fault as fault:
            return _refused(fault)
        if body.lstrip(_SPACE)[:1] == b"[":
            return await self._batch(body, call)
        return await self._one(body, call)

    async def drain(self, drain_s: float) -> None:
        """Refuse new calls from now on, and wait for those under way, at most `drain_s` seconds."""
        self._is_draining = True
        try:
            async with asyncio.timeout(drain_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("drain_cut_short", in_flight=self._in_flight)

    async def _batch(self, body: bytes, call: Call) -> Answer:
        try:
            items = _decode_batch(body)
        except msgspec.MsgspecError:
            return _refused(errors.ParseError())
        if not items:
            return _refused(errors.InvalidRequest("cannot carry out a batch of no calls"))
        if len(items) > BATCH_MAX:
            limit = {"calls": len(items), "limitCalls": BATCH_MAX}
            return _refused(
                errors.PayloadTooLarge(f"cannot carry out more than {BATCH_MAX} calls at once", data=limit)
            )
        slots = asyncio.Semaphore(BATCH_AT_ONCE)

        async def limited(item: msgspec.Raw) -> Answer:
            async with slots:
                return await self._one(bytes(item), call)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(limited(item), name="batch-call") for item in items]
        bodies = [answer for task in tasks if (answer := task.result().body) is not None]
        return Answer(b"[" + b",".join(bodies) + b"]" if bodies else None)

    async def _one(self, body: bytes, call: Call) -> Answer:
        try:
            envelope = _decode_envelope(body)
            request_id = _checked_id(envelope.id)
            _check_params(envelope.params)
        except (msgspec.MsgspecError, errors.InvalidRequest):
            return _unreadable(body)
        outcome = await self._carried_out(envelope, call)
        if request_id is None:
            return Answer(None)
        if isinstance(outcome, errors.Fault):
            return Answer(error_body(outcome, request_id), outcome)
        return Answer(b'{"jsonrpc":"2.0","id":' + request_id + b',"result":' + outcome + b"}")

    async def _carried_out(self, envelope: _Envelope, call: Call) -> bytes | errors.Fault:
        if self._is_draining:
            return errors.ShuttingDown()
        if self._in_flight >= self._in_flight_max:
            return errors.TooManyInFlight()
        self._in_flight += 1
        self._idle.clear()
        try:
            work = self._dispatch(envelope, call)
            return await outcomes.settled(
                work, method=envelope.method[:_SHOWN_CHARS_MAX], request_id=call.request_id
            )
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def _dispatch(self, envelope: _Envelope, call: Call) -> bytes:
        route = self._routes.get(envelope.method)
        if route is None:
            raise errors.MethodNotFound(f"there is no method {envelope.method[:_SHOWN_CHARS_MAX]!r}")
        method = route.method
        if method.needs is methods.Needs.ADMIN and not call.caller.is_admin:
            # Forbidden looks like missing.
            raise errors.MethodNotFound(f"there is no method {method.name!r}")
        try:
            params = method.params.__pydantic_validator__.validate_json(bytes(envelope.params))
        except pydantic.ValidationError as error:
            raise problems.fault_of(method.name, error) from None
        if not method.has_side_effect:
            return _result(await route.work(params, call))
        started_at = asyncio.get_running_loop().time()
        result = await route.work(params, call)
        took_ms = round((asyncio.get_running_loop().time() - started_at) * 1000)
        log.info("rpc_served", method=method.name, caller=call.caller.id, took_ms=took_ms)
        return _result(result)


def error_body(fault: errors.Fault, request_id: bytes = _NULL) -> bytes:
    """A fault as a response. `request_id` is JSON; null when the request's own could not be read."""
    data = {"kind": fault.kind, "retryable": fault.retryable, **fault.data}
    error = _encode({"code": fault.code, "message": fault.message, "data": data})
    return b'{"jsonrpc":"2.0","id":' + request_id + b',"error":' + error + b"}"


def _result(result: base.Result) -> bytes:
    encoded: bytes = result.__pydantic_serializer__.to_json(result, by_alias=True)
    return encoded


def _refused(fault: errors.Fault) -> Answer:
    return Answer(error_body(fault), fault)


def _unreadable(body: bytes) -> Answer:
    """The answer to what is no request: whether it is JSON at all, and which rule it breaks."""
    try:
        value = _decode_any(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _refused(errors.ParseError())
    fault = errors.InvalidRequest(_broken_rule(value))
    request_id = value.get("id") if isinstance(value, dict) else None
    if isinstance(request_id, bool) or not isinstance(request_id, str | int | float):
        return _refused(fault)
    # An integer may be larger than the encoder takes.
    shown = str(request_id).encode() if isinstance(request_id, int) else _encode(request_id)
    return Answer(error_body(fault, shown), fault)


def _broken_rule(value: Any) -> str:
    if not isinstance(value, dict):
        return "a request must be an object"
    if value.get("jsonrpc") != "2.0":
        return 'a request must have the member jsonrpc with the value "2.0"'
    if not isinstance(value.get("method"), str):
        return "a request must have the member method, a string"
    if not isinstance(value.get("params", {}), dict | list):
        return "params must be an object"
    if isinstance(value.get("id"), bool | dict | list):
        return "an id must be a string, a number or null"
    return "a request has no members but jsonrpc, method, params and id"


def _checked_id(raw: msgspec.Raw) -> bytes | None:
    """The id as it came, or None for a notification."""
    text = bytes(raw)
    if not text or text.isdigit():
        return text or None
    try:
        _decode_id(text)
    except msgspec.MsgspecError:
        raise errors.InvalidRequest from None
    return text


def _check_params(raw: msgspec.Raw) -> None:
    if bytes(memoryview(raw)[:1]) not in {b"{", b"["}:
        raise errors.InvalidRequest


def _check_text(body: bytes) -> None:
    """Raise what stands for a body that is no UTF-8, or nested deeper than anything we read."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            raise errors.ParseError from None
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(body):
        mark = match[0]
        depth += (mark in b"[{") - (mark in b"]}")
        if depth > DEPTH_MAX:
            raise errors.PayloadTooLarge(
                f"cannot read JSON nested deeper than {DEPTH_MAX}", data={"limitDepth": DEPTH_MAX}
            )
