"""What all parameters and results of the gateway have in common.

Parameters refuse what they do not know and convert nothing; results pass over what a newer gateway adds.
Moments are RFC 3339 text, lengths of time end in their unit. Sentences about fields are part of the published schema.
"""

from typing import Annotated

import pydantic
from pydantic import alias_generators

from paddock.contracts import ids

WAIT_MAX_S = 60.0
"""A caller may let a method wait this long for the machine to get somewhere; longer is for events."""
PAGE_SIZE = 50
PAGE_SIZE_MAX = 200
NO_NUL = r"^[^\x00]*$"
PRINTABLE = r"^[^\x00-\x1f\x7f]+$"
ENV_NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"


class Params(pydantic.BaseModel):
    """Base of everything asked: camelCase on the wire, unknown members refused, no conversions."""

    model_config = pydantic.ConfigDict(
        alias_generator=alias_generators.to_camel,
        populate_by_name=True,
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


class Result(pydantic.BaseModel):
    """Base of everything answered: camelCase on the wire, unknown members passed over."""

    model_config = pydantic.ConfigDict(
        alias_generator=alias_generators.to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )


class Nothing(Params):
    """No parameters."""


class Done(Result):
    """No result but that it was done."""


def _with_binary(command: list[str]) -> list[str]:
    if not command[0]:
        raise ValueError("must name a binary first")
    return command


MachineId = Annotated[str, pydantic.Field(pattern=ids.ID_PATTERN, description="The machine's id.")]
ProjectId = Annotated[str, pydantic.Field(pattern=ids.ID_PATTERN, description="The project's id.")]
Moment = Annotated[str, pydantic.Field(description="RFC 3339 in UTC with milliseconds.")]
Label = Annotated[
    str, pydantic.Field(min_length=1, max_length=100, pattern=PRINTABLE, description="A name for people.")
]
Command = Annotated[
    list[Annotated[str, pydantic.Field(max_length=128 * 1024, pattern=NO_NUL)]],
    pydantic.Field(min_length=1, max_length=4096, description="The binary and its arguments; no shell."),
    pydantic.AfterValidator(_with_binary),
]
EnvName = Annotated[
    str,
    pydantic.Field(pattern=ENV_NAME_PATTERN, description="A variable's name: an identifier."),
]
EnvValue = Annotated[
    str,
    pydantic.Field(max_length=64 * 1024, pattern=NO_NUL, description="Text without NUL; kept encrypted."),
]
Variables = Annotated[
    dict[EnvName, EnvValue],
    pydantic.Field(max_length=512, description="Environment variables by name."),
]
PageCursor = Annotated[
    str, pydantic.Field(min_length=1, max_length=200, description="`nextCursor` of the page before.")
]
PageLimit = Annotated[
    int, pydantic.Field(ge=1, le=PAGE_SIZE_MAX, description=f"At most this many, {PAGE_SIZE} unless given.")
]
WaitS = Annotated[
    float,
    pydantic.Field(
        ge=0,
        le=WAIT_MAX_S,
        description="Seconds to wait for the end of what was asked; the answer is how it then is.",
    ),
]
