"""nats-py, hardened: a connection that breaks comes back, whatever broke it.

nats-py 2.16 can end up connected in name only, or closed for ever: after a late PONG, a callback that raises,
a bug in its parser, a frozen peer, an expired credential. `SafeClient` turns each of these into an ordinary
reconnect. It touches private names, so nats-py is pinned and every case is a test. Everything of ours
connects with `connect`.
"""

import asyncio
import contextlib
import inspect
import os
import pathlib
import random
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import nats.errors
from nats.aio import client as nats_client

from paddock.bus import login, logs
from paddock.contracts import errors

log = logs.get(__name__)

DEAD_PEER_S = 10.0
"""Unacknowledged output for so long breaks the connection; the kernel alone would take about 15 minutes."""
PING_INTERVAL_S = 20
CONNECT_TIMEOUT_S = 10
"""Of one attempt. The default of 2 s throws half-finished handshakes away when a fleet comes back at once."""
BACKOFF_STEPS_MAX = 4
REPORT_EVERY_S = 10.0
"""The same connection error is logged once in so long; a server that is away raises one at each attempt."""
_REPORTS_MAX = 64
READ_BYTES = 256 * 1024
"""Of the socket at once. The default of 32 KiB takes five reads for one frame of a channel, a tenth of what it costs."""
_GENTLE_ERROR = "permissions violation"
"""The one server error after which the server keeps the connection."""

Listener = Callable[[], None]

# Looked up by nats-py at each connect and each read; it has no option for it.
nats_client.DEFAULT_BUFFER_SIZE = READ_BYTES


class SafeClient(nats_client.Client):
    """A NATS connection that reconnects until it is closed on purpose."""

    def __init__(self, *, dead_peer_s: float = DEAD_PEER_S, reconnect_jitter_s: float = 2.0) -> None:
        """Make one, not yet connected.

        Args:
            dead_peer_s: How long output may stay unacknowledged.
            reconnect_jitter_s: A reconnect waits a random time up to this, times 2 for each failed attempt,
                times 15
                at most. A fleet that comes back at the same moment is a storm.
        """
        super().__init__()
        self._dead_peer_ms = round(dead_peer_s * 1000)
        self._jitter_s = reconnect_jitter_s
        self._lost_listeners: list[Listener] = []
        self._restored_listeners: list[Listener] = []
        self._reported_at: dict[str, float] = {}

    async def connect(  # type: ignore[override]  # the same, with options by name only
        self, servers: str | Sequence[str], **options: Any
    ) -> None:
        """Connect, and try for ever. Options are nats-py's; callbacks may raise."""
        reconnected = options.pop("reconnected_cb", None)

        async def restored() -> None:
            self._tell(self._restored_listeners)
            if reconnected is not None:
                await reconnected()

        for name in ("disconnected_cb", "closed_cb", "discovered_server_cb", "lame_duck_mode_cb"):
            if options.get(name) is not None:
                options[name] = _guarded(options[name])
        options["error_cb"] = _guarded(options.get("error_cb") or self._report)
        options.setdefault("reconnect_time_wait", 0.2 + random.uniform(0, self._jitter_s / 2))  # noqa: S311
        options.setdefault("reconnect_to_server_handler", self._choose_server)
        options.setdefault("max_reconnect_attempts", -1)
        options.setdefault("ping_interval", PING_INTERVAL_S)
        options.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
        urls: Any = servers if isinstance(servers, str) else list(servers)
        await super().connect(urls, reconnected_cb=_guarded(restored), **options)

    def watch(self, *, lost: Listener | None = None, restored: Listener | None = None) -> Listener:
        """Call `lost` as soon as the connection is known to be broken or closed, `restored` when it is back.

        Returns:
            What ends it.
        """
        pairs = [(self._lost_listeners, lost), (self._restored_listeners, restored)]
        mine = [(listeners, listener) for listeners, listener in pairs if listener is not None]
        for listeners, listener in mine:
            listeners.append(listener)

        def end() -> None:
            for listeners, listener in mine:
                with contextlib.suppress(ValueError):
                    listeners.remove(listener)

        return end

    def _tell(self, listeners: list[Listener]) -> None:
        for listener in listeners[:]:
            try:
                listener()
            except Exception:  # one listener's bug must not keep the connection down
                log.exception("bus_listener_failed")

    async def _report(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        now = time.monotonic()
        if now - self._reported_at.get(text, -REPORT_EVERY_S) < REPORT_EVERY_S:
            return
        if len(self._reported_at) >= _REPORTS_MAX:
            self._reported_at.clear()
        self._reported_at[text] = now
        log.warning("bus_trouble", error=text, name=self.options.get("name"))

    def _choose_server(
        self, pool: list[nats_client.Server], _info: dict[str, Any]
    ) -> tuple[nats_client.Server, float]:
        server = min(pool, key=lambda one: one.reconnects)
        steps = min(server.reconnects, BACKOFF_STEPS_MAX)
        return server, random.uniform(0, self._jitter_s * min(2**steps, 15))  # noqa: S311 - jitter, no secret

    # What follows replaces private methods of nats-py 2.16; each says which failure it cures.

    async def _process_pong(self) -> None:
        """Case 1: the PONG of a flush given up before raised in the read loop and killed it."""
        if self._pongs:
            waiting = self._pongs.pop(0)
            if not waiting.done():
                waiting.set_result(True)
            self._pongs_received += 1
            self._pings_outstanding = 0

    async def _read_loop(self) -> None:
        """Case 3: any exception ended the read loop and left a connection that hears nothing."""
        await super()._read_loop()
        me = asyncio.current_task()
        if self.is_connected and self._reading_task is me and me is not None and not me.cancelling():
            log.error("bus_read_loop_ended", name=self.options.get("name"))
            await self._process_op_err(nats.errors.UnexpectedEOF())

    async def _process_op_err(self, e: Exception) -> None:
        """Case 4: closing a transport with unsent output waits for a peer that is frozen; drop it instead."""
        if (self.is_connected or self.is_connecting) and self._reconnects:
            await self._error_cb(e)
            writer = self._writer()
            if writer is not None:
                writer.transport.abort()
        await super()._process_op_err(e)

    async def _process_err(self, err_msg: str) -> None:
        """Case 5: an expired credential, or any other error of the server's, closed the client for ever."""
        if _GENTLE_ERROR in err_msg or not self._reconnects:
            await super()._process_err(err_msg)
        else:
            await self._process_op_err(nats.errors.Error(f"nats: {err_msg}"))

    async def _attempt_reconnect(self) -> None:
        """Case 2: what raised in here ended the only task that would ever reconnect."""
        self._tell(self._lost_listeners)
        while True:
            try:
                await super()._attempt_reconnect()
            except Exception:  # a dead reconnect task is a dead machine
                log.exception("bus_reconnect_failed", name=self.options.get("name"))
                await asyncio.sleep(0.1 + self._jitter_s)
            else:
                return

    def _connect_command(self) -> bytes:
        """Case 2 again: nats-py expects credentials to fail by OSError or its own errors only."""
        try:
            return super()._connect_command()
        except (OSError, nats.errors.Error):
            raise
        except Exception as error:
            raise nats.errors.Error(f"cannot log in to the bus: {error}") from error

    async def _connect_to_server(self, s: nats_client.Srv) -> None:
        """Case 7: each attempt left the socket of a refused one to the garbage collector."""
        writer = self._writer()
        if writer is not None:
            writer.transport.abort()
        await super()._connect_to_server(s)

    async def _process_connect_init(self) -> None:
        """Case 4 again. And what an unbuffered connection had not sent when it broke is not sent now."""
        if self._max_pending_size == 0:
            self._pending = []
            self._pending_data_size = 0
        writer = self._writer()
        if writer is not None:
            _limit_unacknowledged(writer, self._dead_peer_ms)
        await super()._process_connect_init()

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        """Case 6: a cancellation during a flush was swallowed, and with it the caller's deadline."""
        me = asyncio.current_task()
        before = me.cancelling() if me is not None else 0
        flushed = await super()._flush_pending(force_flush)
        if me is not None and me.cancelling() > before:
            raise asyncio.CancelledError
        return flushed

    async def _send_ping(self, future: "asyncio.Future[Any] | None" = None) -> None:
        """Case 8: the PING of a flush overtook what it was to confirm, such as a subscription just made.

        It is not sent as a command is: that may wait for a frozen peer, and the pings are what notices one.
        """
        self._pongs.append(future if future is not None else asyncio.get_running_loop().create_future())
        self._pending.append(nats_client.PING_PROTO)
        self._pending_data_size += len(nats_client.PING_PROTO)
        await self._flush_pending()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if self._flush_queue is None:
            self._status = status  # never got as far as connecting
            return
        if status == nats_client.Client.CLOSED and not self.is_closed:
            self._tell(self._lost_listeners)
        await super()._close(status, do_cbs)

    @property
    def _reconnects(self) -> bool:
        return bool(self.options.get("allow_reconnect", True))

    def _writer(self) -> asyncio.StreamWriter | None:
        writer: asyncio.StreamWriter | None = getattr(self._transport, "_io_writer", None)
        return writer


async def connect(
    url: str | Sequence[str],
    *,
    name: str,
    creds: str | pathlib.Path | None = None,
    inbox_prefix: str = "_INBOX_local",
    pending_size: int = 0,
    timeout_s: float | None = None,
    reconnect_jitter_s: float = 2.0,
    dead_peer_s: float = DEAD_PEER_S,
    **options: Any,
) -> SafeClient:
    """Connect to the bus and stay connected.

    Args:
        url: One server or several of one cluster.
        name: Shown in the server's monitoring.
        creds: The text of a creds file, or the path of one, which is read again at each connect.
        inbox_prefix: Begins with `_INBOX_`; where this connection may receive answers.
        pending_size: Bytes kept for sending while disconnected. 0 for RPC: a request that was buffered runs after
            its caller has given up. JetStream publishers want about 2 MiB.
        timeout_s: How long to try at first; None is for ever. Once connected it is always for ever.
        reconnect_jitter_s: See `SafeClient`.
        dead_peer_s: See `SafeClient`.
        options: More of nats-py's, such as `closed_cb`.

    Raises:
        errors.BusDown: Not connected within `timeout_s`.

    Cancellation: safe; nothing is left behind.
    """
    client = SafeClient(dead_peer_s=dead_peer_s, reconnect_jitter_s=reconnect_jitter_s)
    if creds is not None:
        options.update(login.callbacks(creds))
    try:
        async with asyncio.timeout(timeout_s):
            await client.connect(
                url, name=name, inbox_prefix=inbox_prefix, pending_size=pending_size, **options
            )
    except TimeoutError as error:
        await client.close()
        detail = str(client.last_error or "")
        raise errors.BusDown(f"cannot reach the bus within {timeout_s} s", detail=detail) from error
    except BaseException:
        await client.close()
        raise
    return client


def _guarded(callback: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The callback, unable to raise into nats-py."""
    if not inspect.iscoroutinefunction(callback):
        raise nats.errors.InvalidCallbackTypeError

    async def guarded(*arguments: Any) -> None:
        try:
            await callback(*arguments)
        except Exception:  # it would end the read loop or the reconnect task
            log.exception("bus_callback_failed")
        # Case 7: a refused connection and a cancellation in the same moment, and nats-py passes the cancellation over
        # and tries on for ever. It reports the refusal here first.
        me = asyncio.current_task()
        if me is not None and me.cancelling():
            raise asyncio.CancelledError

    return guarded


def _limit_unacknowledged(writer: asyncio.StreamWriter, limit_ms: int) -> None:
    transport_socket = writer.get_extra_info("socket")
    if transport_socket is None or transport_socket.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    # A duplicate of the descriptor: uvloop's stand-in for a socket sets no options.
    with socket.socket(fileno=os.dup(transport_socket.fileno())) as duplicate, contextlib.suppress(OSError):
        duplicate.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
