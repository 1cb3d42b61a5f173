"""What a gateway is told, beside what every service is."""

from typing import Annotated, ClassVar

import pydantic

from paddock.store import settings as shared


class Settings(shared.ServiceSettings):
    """Read once, in `__main__`."""

    service: ClassVar[str] = "gateway"

    gateway_host: Annotated[str, pydantic.Field(min_length=1, description="The address to listen on.")] = (
        "127.0.0.1"
    )
    gateway_port: Annotated[
        int, pydantic.Field(ge=0, le=65_535, description="The port to listen on; 0 takes a free one.")
    ] = 7480
    gateway_providers: Annotated[
        str,
        pydantic.Field(
            pattern=r"^[a-z][a-z0-9_-]{0,39}(,[a-z][a-z0-9_-]{0,39})*$",
            description="Providers that projects may name, comma-separated; the first is the default.",
        ),
    ] = "bubblewrap,process"
    gateway_in_flight_max: Annotated[
        int, pydantic.Field(gt=0, description="Calls carried out at once; one more is refused.")
    ] = 2048
    gateway_public_url: Annotated[
        str,
        pydantic.Field(
            pattern=r"^(https?://[A-Za-z0-9.:\[\]-]+(/[^\s?#]*)?)?$",
            description="How people reach the gateway when that is not where it listens, such as https://paddock.example.com.",
        ),
    ] = ""
    gateway_ports_domain: Annotated[
        str,
        pydantic.Field(
            pattern=r"^([a-z0-9-]+(\.[a-z0-9-]+)*)?$",
            description="Ports of machines are at <port>--<machine> under this name; empty leaves them by path only.",
        ),
    ] = "localhost"
    gateway_ports_head_s: Annotated[
        float,
        pydantic.Field(gt=0, description="Seconds an application in a machine has to begin its answer."),
    ] = 60.0
