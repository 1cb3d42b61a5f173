"""The registrar's settings; the shared ones are in `paddock.store.settings`."""

import pathlib
from typing import Annotated, ClassVar

import pydantic

from paddock.contracts import daemon
from paddock.store import settings


class Settings(settings.ServiceSettings):
    """What the registrar is told."""

    service: ClassVar[str] = "registrar"

    registrar_daemon_key_file: Annotated[
        pathlib.Path,
        pydantic.Field(description="Seed of the scoped key that signs daemons' credentials, 0600."),
    ]
    registrar_fleet_account: Annotated[
        str, pydantic.Field(pattern="^A[A-Z2-7]{55}$", description="Public key of FLEET.")
    ]
    registrar_credential_ttl_s: Annotated[
        int, pydantic.Field(gt=0, description="How long a daemon's credential is good.")
    ] = 365 * 24 * 3600
    registrar_heartbeat_s: Annotated[
        float, pydantic.Field(gt=0, description="What daemons were told to beat at.")
    ] = daemon.HEARTBEAT_S
