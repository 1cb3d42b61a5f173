"""One question to the gateway and its answer: JSON-RPC 2.0 over `POST /rpc`, with a deadline and typed faults.

A question is asked again only after a fault that says trying again can help, and only when the method is safe to
repeat: it reads, it names its one effect (`clientToken`, `callId`), or doing it twice is doing it once. What never
reached the gateway may always be asked again. Answers are the contract's models.
"""

import asyncio
import contextlib
import importlib.metadata
import random
from collections.abc import Iterator
from typing import Any, Final, Literal, Self, TypeVar

import aiohttp
import pydantic
from aiohttp import hdrs

from paddock.client import address
from paddock.contracts import errors
from paddock.contracts.api import base, methods

TIMEOUT_S = 30.0
"""For a whole call with its repetitions, on top of the time the call itself is asked to take."""
CONNECT_S = 10.0
HEARTBEAT_S = 20.0
"""Between pings on a WebSocket; a link that answers none for half as long is cut."""
CLOSE_S = 0.5
"""For the other side's good-bye on a WebSocket."""
DELAYS_S: Final = (0.1, 0.3, 0.9)
"""Before the second, third and fourth try; each up to half longer, so that many callers do not return as one."""
OFFLINE_REPEATS: Final = 2
"""When a machine is offline: enough for a daemon that restarts, and its absence is told within a second."""
SAFE: Final = frozenset(method.name for method in methods.ALL if not method.has_side_effect) | {
    method.name
    for method in (methods.PROJECT_UPDATE, methods.MACHINE_DELETE, methods.ENV_SET, methods.ENV_UNSET)
}
"""May be done twice: reading, and saying again how something should be."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

ParamsT = TypeVar("ParamsT", bound=base.Params)
ResultT = TypeVar("ResultT", bound=base.Result)


class _ErrorBody(pydantic.BaseModel):
    code: int
    message: str
    data: dict[str, Any] | None = None


class Reply(pydantic.BaseModel):
    """A JSON-RPC response; which of `result` and `error` was sent is in `model_fields_set`."""

    jsonrpc: Literal["2.0"]
    id: int | str | None = None
    result: Any = None
    error: _ErrorBody | None = None

    def result_or_fault(self) -> Any:
        """The result, or the fault raised."""
        if self.error is not None:
            raise errors.from_wire(self.error.code, self.error.message, self.error.data)
        if "result" not in self.model_fields_set:
            raise errors.BadAnswer("cannot read the gateway's answer: it has neither result nor error")
        return self.result


@contextlib.contextmanager
def checked() -> Iterator[None]:
    """Parameters made in this block that do not fit their method raise `errors.InvalidParams`, in one sentence."""
    try:
        yield
    except pydantic.ValidationError as error:
        raise errors.InvalidParams(f"cannot use these parameters: {complaint(error)}") from None


def complaint(error: pydantic.ValidationError) -> str:
    """What is wrong where, without the values: `machine_id: String should match pattern …`."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [
        f"{'.'.join(map(str, one['loc'])) or 'all'}: {one['msg'].removeprefix('Value error, ')}"
        for one in found[:3]
    ]
    return "; ".join(lines) + ("; …" if len(found) > len(lines) else "")


def request(method: methods.Method[ParamsT, ResultT], params: ParamsT, request_id: int = 1) -> str:
    """The text of one JSON-RPC request; members that are None are left out."""
    members = params.model_dump_json(by_alias=True, exclude_none=True)
    return f'{{"jsonrpc":"2.0","id":{request_id},"method":"{method.name}","params":{members}}}'


def result(method: methods.Method[ParamsT, ResultT], reply: Reply) -> ResultT:
    """The typed result of `method`.

    Raises:
        errors.Fault: The one the gateway answered, or `BadAnswer` when the result is not the method's.
    """
    answer = reply.result_or_fault()
    try:
        return method.result.model_validate(answer)
    except pydantic.ValidationError as error:
        raise errors.BadAnswer(
            f"cannot read the answer to {method.name}: the gateway speaks another version",
            detail=complaint(error),
        ) from error


async def _no_socket_elsewhere(
    asked: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Refuse to follow a redirected WebSocket: aiohttp would show our headers wherever it leads."""
    response = await handler(asked)
    if hdrs.UPGRADE in asked.headers and response.status in _REDIRECTS:
        response.close()
        raise aiohttp.WSServerHandshakeError(
            response.request_info, (), status=response.status, headers=response.headers
        )
    return response


class Transport:
    """The connections to one gateway. Used inside `async with`; any number of calls at once."""

    def __init__(self, where: address.Address, *, timeout_s: float = TIMEOUT_S) -> None:
        self._where = where
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return self._where.url

    @property
    def token(self) -> str:
        """The access token; for the gateway and nobody else."""
        return self._where.token

    @property
    def session(self) -> aiohttp.ClientSession:
        """The HTTP session under it, which shows the access token to whatever it asks."""
        return self._open_session()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={
                "Authorization": f"Bearer {self._where.token}",
                "User-Agent": f"paddock-client/{importlib.metadata.version('paddock-client')}",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            # Every stream and every wait has a connection of its own; a limit would let one stand in another's way.
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            middlewares=(_no_socket_elsewhere,),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(
        self,
        method: methods.Method[ParamsT, ResultT],
        params: ParamsT,
        *,
        takes_s: float = 0.0,
        is_named: bool = False,
    ) -> ResultT:
        """Ask one method and wait for its result.

        Args:
            method: From the contract's table.
            params: Its parameters.
            takes_s: Seconds the work itself may take; the deadline is that much later.
            is_named: The parameters carry a token by which a repetition does nothing twice.

        Raises:
            errors.NoAnswer: The deadline passed, or the link was cut; the work may have been done all the same.
            errors.GatewayUnreachable: Nothing was asked.
            errors.Fault: The gateway refused; the subclass says why.

        Cancellation: safe; what the gateway began goes on.
        """
        timeout_s = self._timeout_s + takes_s
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._ask(method.name, request(method, params), is_named or method.name in SAFE)
        except TimeoutError as error:
            raise errors.NoAnswer(
                f"cannot say how {method.name} ended: the gateway did not answer within {timeout_s:g} s"
            ) from error
        return result(method, reply)

    async def websocket(self) -> aiohttp.ClientWebSocketResponse:
        """A new WebSocket to the gateway; the caller closes it.

        Raises:
            errors.GatewayUnreachable: Nothing answers there, or not now.
            errors.Fault: The gateway refused.
        """
        try:
            async with asyncio.timeout(CONNECT_S):
                return await self._open_session().ws_connect(
                    f"{self.url}/ws", heartbeat=HEARTBEAT_S, timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S)
                )
        except aiohttp.WSServerHandshakeError as error:
            raise self._refusal(error.status) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self.unreachable(error) from error

    async def _ask(self, name: str, body: str, is_safe: bool) -> Reply:
        """Try, and try again where that is safe; the last try's fault is the answer."""
        for repeats, delay_s in enumerate(DELAYS_S):
            try:
                reply = await self._post(name, body)
                reply.result_or_fault()
            except errors.Fault as fault:
                if not fault.retryable or not (is_safe or isinstance(fault, errors.GatewayUnreachable)):
                    raise
                if isinstance(fault, errors.MachineOffline) and repeats >= OFFLINE_REPEATS:
                    raise
            else:
                return reply
            await asyncio.sleep(delay_s * random.uniform(1.0, 1.5))  # noqa: S311 - jitter
        return await self._post(name, body)

    async def _post(self, name: str, body: str) -> Reply:
        try:
            async with self._open_session().post(
                f"{self.url}/rpc",
                data=body.encode(),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,  # the token is for this address only
            ) as response:
                content = await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise self.unreachable(error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise errors.NoAnswer(
                f"cannot say how {name} ended: the link to {self.url} was cut", detail=str(error)
            ) from error
        try:
            return Reply.model_validate_json(content)
        except pydantic.ValidationError:
            raise self._refusal(response.status) from None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("a Transport works inside `async with` only")
        return self._session

    def unreachable(self, error: Exception) -> errors.Fault:
        return errors.GatewayUnreachable(
            f"cannot reach the gateway at {self.url}: nothing answers there", detail=str(error)
        )

    def _refusal(self, status: int) -> errors.Fault:
        """What an answer without JSON-RPC in it means."""
        match status:
            case 401 | 403:
                return errors.Unauthenticated(f"cannot ask {self.url}: it does not accept the access token")
            case 413:
                return errors.PayloadTooLarge(f"cannot send this to {self.url}: it is too large")
            case 502 | 503 | 504:
                return errors.NoAnswer(
                    f"cannot get an answer from {self.url}: it is not ready (HTTP {status})"
                )
            case _:
                return errors.BadAnswer(
                    f"cannot understand {self.url}: it is no Paddock gateway (HTTP {status})"
                )
