"""`exec.*` in a daemon that may never be asked for it: loaded with the first call, or at once where commands are known.

Most of what it takes is then not in memory. The methods are named here and not taken from the contract for that reason.
"""

import asyncio
import contextlib
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from paddock.bus import clock, handlers, lifecycle
from paddock.daemon import environment, settings

if TYPE_CHECKING:
    from paddock.daemon import executions

METHODS = (
    "exec.start",
    "exec.write",
    "exec.resize",
    "exec.signal",
    "exec.wait",
    "exec.list",
    "exec.output",
    "exec.summary",
)
CHANNELS = ("exec.attach",)
_FOLDER = "exec"
"""As in `keeper_protocol`."""
_LOOK_AGAIN_S = 3600.0


class ExecLater:
    """The methods, and the loop that has to run beside them."""

    def __init__(
        self, told: settings.Settings, surroundings: environment.Environment, now: clock.Clock
    ) -> None:
        self._told = told
        self._surroundings = surroundings
        self._clock = now
        self._index: executions.Index | None = None
        self._handlers: Mapping[str, handlers.Handler] = {}
        self._wanted = lifecycle.Wakeup()

    def table(self) -> tuple[handlers.Handler, ...]:
        """For `rpc.<S>.call`."""
        return (
            *(self._handler(name, is_channel=False) for name in METHODS),
            *(self._handler(name, is_channel=True) for name in CHANNELS),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Keep what is known of commands in order until `stop`; does nothing before there is something to know."""
        with contextlib.suppress(OSError):
            if next((self._told.folder / _FOLDER).iterdir(), None) is not None:
                self._load()
        while self._index is None and not stop.is_set():
            await self._wanted.wait(_LOOK_AGAIN_S, stop)
        if self._index is not None:
            await self._index.run(stop)

    async def close(self) -> None:
        """After the last call was answered."""
        if self._index is not None:
            await self._index.close()

    def _handler(self, name: str, *, is_channel: bool) -> handlers.Handler:
        return handlers.Handler(
            name, functools.partial(self._decode, name), functools.partial(self._work, name), is_channel
        )

    def _decode(self, name: str, params: msgspec.Raw) -> Any:
        self._load()
        return self._handlers[name].decode(params)

    def _work(self, name: str, params: Any, context: handlers.CallContext) -> Any:
        return self._handlers[name].work(params, context)

    def _load(self) -> None:
        if self._index is not None:
            return
        from paddock.daemon import exec_handlers, executions  # noqa: PLC0415 - see above

        told = self._told
        index = executions.Index(told.folder, told.environ, self._clock, kept_s=told.boot.exec_kept_s)
        made = exec_handlers.ExecHandlers(index, self._surroundings, told.home, self._clock)
        self._index, self._handlers = index, handlers.table(*made.table())
        self._wanted.set()
