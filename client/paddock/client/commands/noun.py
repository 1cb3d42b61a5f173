"""How a noun's verbs become commands.

A verb is `async def get(desk, machine)`: it gets a desk and its own parameters. Here the options every command
understands are added to it, and typer is shown a plain function.
"""

import functools
import inspect
import pathlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from paddock.client.commands import desk

P = ParamSpec("P")
Verb = Callable[Concatenate[desk.Desk, P], Awaitable[None]]


def choices(
    url: Annotated[str | None, typer.Option(help="The gateway's address [PADDOCK_URL].")] = None,
    token_file: Annotated[
        pathlib.Path | None,
        typer.Option(help="A file with the access token [PADDOCK_TOKEN_FILE, PADDOCK_TOKEN]."),
    ] = None,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON, as the gateway answers it.")] = False,
) -> desk.Choices:
    """The options that every command understands; typer reads them off this signature."""
    return desk.Choices(url, token_file, is_json)


class Noun(typer.Typer):
    """A noun and its verbs."""

    def __init__(self, help_text: str = "") -> None:
        super().__init__(help=help_text, no_args_is_help=True, add_completion=False, rich_markup_mode=None)

    def verb(self, name: str, *, takes_rest: bool = False) -> Callable[[Verb[P]], Verb[P]]:
        """Make an async function the command `name`; its docstring is the help.

        Args:
            name: As it is typed.
            takes_rest: Options after the first argument belong to that argument's command.
        """
        settings = {"allow_interspersed_args": False} if takes_rest else {}

        def register(verb: Verb[P]) -> Verb[P]:
            self.command(name, context_settings=settings)(_as_typer_reads_it(verb))
            return verb

        return register


def _as_typer_reads_it(verb: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    own = list(inspect.signature(verb).parameters.values())[1:]
    common = list(inspect.signature(choices).parameters.values())

    def command(context: typer.Context, **given: Any) -> None:
        chosen = choices(**{parameter.name: given.pop(parameter.name) for parameter in common})
        if isinstance(context.obj, tuple):  # those before the noun; the root does not load our types
            chosen = chosen.or_else(desk.Choices(*context.obj))
        desk.run(chosen, lambda at: verb(at, **given))

    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    shown = [context, *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *common))]
    functools.update_wrapper(command, verb)
    del command.__wrapped__  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    command.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return command
