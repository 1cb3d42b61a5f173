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
