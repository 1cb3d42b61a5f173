"""Whether this gateway can do its work, and if not, what is missing."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from paddock.contracts import errors

CHECK_S: Final = 2.0

Check = Callable[[], Awaitable[None]]
"""Returns when all is well; raises the fault that says what is not."""


class Readiness:
    """Named checks, asked together."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)

    async def missing(self) -> dict[str, str]:
        """What is not ready, by name, each with a sentence. Empty when all is well."""
        found: dict[str, str] = {}

        async def look(name: str, check: Check) -> None:
            try:
                async with asyncio.timeout(CHECK_S):
                    await check()
            except errors.Fault as fault:
                found[name] = fault.message
            except TimeoutError:
                found[name] = f"no answer within {CHECK_S:.0f} s"

        async with asyncio.TaskGroup() as group:
            for name, check in self._checks.items():
                group.create_task(look(name, check), name=f"ready-{name}")
        return dict(sorted(found.items()))
