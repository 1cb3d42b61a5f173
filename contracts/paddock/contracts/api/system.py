"""Asking the gateway about itself."""

from typing import Annotated

import pydantic

from paddock.contracts.api import base


class Pong(base.Result):
    """The least there is to answer."""

    pong: Annotated[bool, pydantic.Field(description="Always true.")] = True


class SystemInfo(base.Result):
    """Who answers."""

    version: Annotated[str, pydantic.Field(description="The gateway's version.")]
    now_ms: Annotated[int, pydantic.Field(description="The gateway's clock, unix milliseconds.")]
    methods: Annotated[list[str], pydantic.Field(description="Every method this gateway answers.")]
