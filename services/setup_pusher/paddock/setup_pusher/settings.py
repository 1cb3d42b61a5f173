"""What a setup pusher is told, beside what every service is."""

from typing import Annotated, ClassVar

import pydantic

from paddock.setup_pusher import environment, repositories
from paddock.store import settings as shared


class Settings(shared.ServiceSettings):
    """Read once, in `__main__`."""

    service: ClassVar[str] = "setup_pusher"

    setup_pusher_http_proxy: Annotated[str, pydantic.Field(description="HTTP_PROXY of every machine.")] = ""
    setup_pusher_https_proxy: Annotated[str, pydantic.Field(description="HTTPS_PROXY of every machine.")] = ""
    setup_pusher_no_proxy: Annotated[str, pydantic.Field(description="NO_PROXY of every machine.")] = ""
    setup_pusher_ca_file: Annotated[
        str,
        pydantic.Field(
            pattern=r"^(/.*)?$", description="A CA bundle's path inside the machines, for every TLS client."
        ),
    ] = ""
    setup_pusher_git_protocols: Annotated[
        tuple[Annotated[str, pydantic.Field(pattern="^[a-z]+$")], ...],
        pydantic.Field(min_length=1, description="What repositories may be cloned over, a JSON list."),
    ] = repositories.PROTOCOLS
    setup_pusher_concurrency: Annotated[
        int, pydantic.Field(gt=0, description="Machines set up at once by this process.")
    ] = 200

    def network(self) -> environment.Network:
        """How machines reach the world."""
        return environment.Network(
            http_proxy=self.setup_pusher_http_proxy,
            https_proxy=self.setup_pusher_https_proxy,
            no_proxy=self.setup_pusher_no_proxy,
            ca_file=self.setup_pusher_ca_file,
        )
