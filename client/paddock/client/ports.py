"""Ports of one machine: HTTP and WebSocket to an application there, addresses to hand out, and plain connections.

A request goes through the gateway, which shows the application neither our token nor any cookie of ours. What the
application answers comes back as it is, its errors included; what the gateway could not do is a fault of the contract.
"""

import io
import json
import re
from collections.abc import Awaitable, Coroutine, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import aiohttp
import yarl

from paddock.client import streams, transport
from paddock.contracts import errors
from paddock.contracts.api import methods, ports
from paddock.contracts.api import streams as wire

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of a WebSocket, unless another limit is given."""
_WARNED_BYTES: Final = 1024 * 1024
"""aiohttp wants longer bodies as files."""
_WRITTEN: Final = re.compile(r"[!-~]*", re.ASCII)
_KINDS: Final = {fault.kind: fault for fault in errors.catalogue().values()}


class Fetch(Awaitable[aiohttp.ClientResponse]):
    """A request to be made: await it, and release the answer; or use it as a context, which does."""

    def __init__(self, asking: Coroutine[Any, Any, aiohttp.ClientResponse]) -> None:
        self._asking = asking
        self._response: aiohttp.ClientResponse | None = None

    def __await__(self) -> Generator[Any, Any, aiohttp.ClientResponse]:
        return self._asking.__await__()

    async def __aenter__(self) -> aiohttp.ClientResponse:
        self._response = await self._asking
        return self._response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._response is not None:
            self._response.release()


class Connection:
    """Bytes to and from a port, in both directions at once; one reader and one writer."""

    def __init__(self, stream: streams.StreamLink[ports.PortOpened]) -> None:
        self._stream = stream
        self._is_eof = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def was_reset(self) -> bool:
        """Whether the application broke it off; known after `read` answered nothing."""
        return bool(self._stream.result.get("reset"))

    @property
    def has_ended(self) -> bool:
        """Whether both directions have, in whatever way."""
        return bool(self._stream.result)

    async def read(self) -> bytes:
        """What has come, at least a byte; nothing when no more comes.

        Raises:
            errors.ChannelBroken: The way there broke off.

        Cancellation: safe; nothing is lost.
        """
        while not self._is_eof:
            frame = await self._stream.receive()
            self._is_eof = frame is None or frame.kind is wire.FrameKind.EOF
            if frame is not None and frame.data:
                return bytes(frame.data)
        return b""

    async def write(self, data: bytes | memoryview) -> None:
        """Send it all, at the application's pace.

        Raises:
            errors.ChannelBroken: The way there broke off, or the application takes no more.
        """
        await self._stream.send(data)

    async def write_eof(self) -> None:
        """Say that nothing more comes; reading goes on."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """End it."""
        await self._stream.aclose()


class Ports:
    def __init__(self, link: transport.Transport, machine_id: str) -> None:
        self._link, self._machine_id = link, machine_id

    def fetch(
        self,
        port: int,
        path: str = "/",
        *,
        method: str = "GET",
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        json: Any = None,
        timeout_s: float | None = None,
    ) -> Fetch:
        """Ask an application over HTTP: `async with machine.fetch(3000, "/api") as response`.

        The answer is aiohttp's: read it with `read()`, `json()` or `content.iter_any()`. Redirects are answers and are not
        followed: where they lead is for the application's own host.

        Args:
            port: Where it listens, on the machine's loopback.
            path: With its query; sent as it is when it is written as an address is.
            method: Of HTTP.
            params: Added to the query.
            headers: Added; an `Authorization` among them is for the application.
            data: The body: bytes, a file, a form or an async iterable of bytes.
            json: The body, as JSON.
            timeout_s: For the whole exchange; None waits for as long as it takes.

        Raises:
            errors.PortRefused: Nothing listens there.
            errors.MachineOffline: The machine's daemon is not connected.
            errors.NoAnswer: The application, or the gateway, did not answer.
            errors.Fault: It could not be asked; the subclass says why.
        """
        if isinstance(data, bytes) and len(data) > _WARNED_BYTES:
            data = io.BytesIO(data)
        return Fetch(
            self._fetch(
                method,
                self._url(port, path),
                params=params,
                headers=self._headers(headers),
                data=data,
                json=json,
                timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=transport.CONNECT_S),
            )
        )

    async def websocket(
        self,
        port: int,
        path: str = "/",
        *,
        protocols: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        heartbeat_s: float | None = None,
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket to an application; the caller closes it.

        Args:
            port: Where it listens.
            path: With its query.
            protocols: Subprotocols to offer; `.protocol` says which was taken.
            headers: Added; an `Authorization` among them is for the application.
            message_bytes_max: A longer message ends it; 0 takes any.
            heartbeat_s: Between pings of ours.

        Raises:
            errors.BadAnswer: The application wants no WebSocket there.
            errors.Fault: As `fetch`.
        """
        url = self._url(port, path)
        try:
            return await self._link.session.ws_connect(
                url,
                protocols=protocols,
                headers=self._headers(headers),
                max_msg_size=message_bytes_max,
                heartbeat=heartbeat_s,
            )
        except aiohttp.WSServerHandshakeError as error:
            kind = error.headers.get(ports.ERROR_HEADER) if error.headers is not None else None
            what = f"cannot open a WebSocket to port {port} of machine {self._machine_id}"
            if kind is not None and kind in _KINDS:
                raise _KINDS[kind](f"{what}: {_KINDS[kind]().message}") from error
            raise errors.BadAnswer(f"{what}: the application answered HTTP {error.status}") from error
        except (aiohttp.ClientError, OSError) as error:
            self._cut(error)

    async def port_url(self, port: int, path: str = "/", *, expires_s: float = ports.URL_S) -> ports.PortUrl:
        """An address that lets whoever has it, and no token, reach this port until it expires.

        Raises:
            errors.NotFound: There is no such machine.
        """
        with transport.checked():
            asked = ports.MachinePortUrl(
                machine_id=self._machine_id, port=port, path=path, expires_s=expires_s
            )
        return await self._link.call(methods.MACHINE_PORT_URL, asked)

    async def connect(self, port: int) -> Connection:
        """Open a plain connection; the caller closes it.

        Raises:
            errors.PortRefused: Nothing listens there.
            errors.Fault: As `fetch`.
        """
        with transport.checked():
            asked = ports.MachinePortOpen(machine_id=self._machine_id, port=port)
        return Connection(await streams.opened(self._link, methods.MACHINE_PORT_OPEN, asked))

    def _url(self, port: int, path: str) -> yarl.URL:
        if not path.startswith("/"):
            raise errors.InvalidParams("cannot ask for this path: it must begin with /")
        with transport.checked():
            ports.MachinePortOpen(machine_id=self._machine_id, port=port)
        whole = f"{self._link.url}/machines/{self._machine_id}/ports/{port}{path}"
        return yarl.URL(whole, encoded=_WRITTEN.fullmatch(path) is not None)

    def _headers(self, given: Mapping[str, str] | None) -> dict[str, str]:
        # Beside the session's own Authorization, which one for the application replaces.
        return {ports.TOKEN_HEADER: self._link.token, **(given or {})}

    async def _fetch(self, method: str, url: yarl.URL, **options: Any) -> aiohttp.ClientResponse:
        try:
            response = await self._link.session.request(method, url, allow_redirects=False, **options)
            if ports.ERROR_HEADER in response.headers:
                await _refuse(response)
        except aiohttp.ConnectionTimeoutError as error:
            raise self._link.unreachable(error) from error
        except TimeoutError as error:
            raise errors.NoAnswer("cannot say how the request ended: it took too long") from error
        except (aiohttp.ClientError, OSError) as error:
            self._cut(error)
        return response

    def _cut(self, error: Exception) -> NoReturn:
        if isinstance(error, aiohttp.ClientConnectorError):
            raise self._link.unreachable(error) from error
        raise errors.NoAnswer(
            f"cannot say how the request ended: the link to {self._link.url} was cut", detail=str(error)
        ) from error


async def _refuse(response: aiohttp.ClientResponse) -> NoReturn:
    """Raise what the gateway answered in the application's place."""
    async with response:
        body = await response.read()
    try:
        told = json.loads(body)["error"]
        fault = errors.from_wire(int(told["code"]), str(told["message"]), dict(told["data"]))
    except (ValueError, KeyError, TypeError) as error:
        raise errors.BadAnswer("cannot read what the gateway says about a port") from error
    raise fault
