"""Named places where a fault test holds a process to kill it there. Off unless a setting says otherwise.

On reaching the place the process leaves a file `<dir>/<place>.<pid>` and stands still; the test sees it and kills.
"""

import asyncio
import dataclasses
import os
import pathlib


@dataclasses.dataclass(frozen=True, slots=True)
class Barrier:
    """`place` such as `setup:after-effect` or `before-ack`; empty holds nowhere."""

    place: str = ""
    directory: pathlib.Path = pathlib.Path()

    async def reach(self, place: str) -> None:
        """Stand still for ever when `place` is the one to be held at.

        Cancellation: safe; the file stays.
        """
        if place != self.place:
            return
        (self.directory / f"{place.replace(':', '-')}.{os.getpid()}").touch()
        await asyncio.Event().wait()


NONE = Barrier()
