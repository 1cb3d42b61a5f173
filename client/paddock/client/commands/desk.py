"""What a command has on its desk: a client of the gateway that was chosen, and how to show a result.

`run` is the one place where a command's faults become a sentence and an exit code.
"""

import asyncio
import dataclasses
import pathlib
import sys
from collections.abc import Awaitable, Callable
from typing import Self, TypeVar

import pydantic
import rich.console
import typer

from paddock.client import address
from paddock.client import client as gateway
from paddock.client.commands import failures
from paddock.contracts import errors

WIDE = 240
"""Columns where no terminal says how many it has: files and pipes shall hold whole lines."""
INTERRUPTED = 130

ResultT = TypeVar("ResultT", bound=pydantic.BaseModel)


@dataclasses.dataclass(frozen=True, slots=True)
class Choices:
    """What every command understands, given before the noun or after the verb."""

    url: str | None = None
    token_file: pathlib.Path | None = None
    is_json: bool = False

    def or_else(self, other: "Choices") -> Self:
        return dataclasses.replace(
            self,
            url=self.url or other.url,
            token_file=self.token_file or other.token_file,
            is_json=self.is_json or other.is_json,
        )


class Desk:
    def __init__(self, client: gateway.Client, *, is_json: bool) -> None:
        self.client = client
        self.is_json = is_json

    def show(self, result: ResultT, view: Callable[[ResultT], rich.console.RenderableType]) -> None:
        """Print a result: as the contract's JSON on one line, or as `view` draws it."""
        if self.is_json:
            print(result.model_dump_json(by_alias=True), flush=True)
        else:
            _print(view(result))

    def done(self, text: str) -> None:
        """Print that something was done which has no result."""
        print("{}" if self.is_json else failures.printable(text), flush=True)


def _print(drawn: rich.console.RenderableType) -> None:
    target = console()
    if target.is_terminal:
        target.print(drawn)
        return
    with target.capture() as captured:
        target.print(drawn)
    # Tables are padded to their columns, which only a terminal needs.
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), flush=True)


def console(*, is_stderr: bool = False) -> rich.console.Console:
    """A console that takes text as it is: no markup, no highlighting, no emoji codes."""
    stream = sys.stderr if is_stderr else sys.stdout
    width = None if stream.isatty() else WIDE
    return rich.console.Console(
        stderr=is_stderr, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False
    )


def run(choices: Choices, work: Callable[[Desk], Awaitable[None]]) -> None:
    """Do a command's work with a connected client; a fault is told and ends the process with its exit code."""
    try:
        asyncio.run(_connected(choices, work))
    except errors.Fault as fault:
        failures.tell(fault, is_json=choices.is_json)
        raise typer.Exit(failures.exit_code(fault)) from None
    except KeyboardInterrupt:
        failures.say("stopped here; what the gateway was asked goes on")
        raise typer.Exit(INTERRUPTED) from None


async def _connected(choices: Choices, work: Callable[[Desk], Awaitable[None]]) -> None:
    where = address.find(url=choices.url, token_file=choices.token_file)
    async with gateway.Client(where.url, where.token) as client:
        await work(Desk(client, is_json=choices.is_json))
