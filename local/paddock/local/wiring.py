"""What a stack tells each of its services: the one place where settings of services are filled in.

The same members go to a service in this process and, as `PADDOCK_…` variables, to one that is a process of its own.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Final, Literal, get_args

from paddock.bus import accounts
from paddock.local import data
from paddock.store import settings as shared

ServiceName = Literal["gateway", "registrar", "provisioner", "setup_pusher", "prober"]
SERVICES: Final[tuple[ServiceName, ...]] = get_args(ServiceName)
GATEWAY_PORT = 7480
"""The first choice; any free one when it is taken."""
HOST = "127.0.0.1"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a stack is told. An empty `nats`, `redis` or `database` is the stack's own."""

    data: pathlib.Path = pathlib.Path(".paddock")
    gateway_port: int = GATEWAY_PORT
    nats: str = ""
    redis: str = dataclasses.field(default="", repr=False)
    database: str = dataclasses.field(default="", repr=False)
    runtime: pathlib.Path | None = None
    unsafe_process_provider: bool = False
    log_level: str = "INFO"
    drain_s: float = 10.0
    more: Mapping[ServiceName, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    """Settings of single services, by their own names; for tests."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where everything is that services share."""

    nats: str
    redis: str = dataclasses.field(repr=False)
    database: str = dataclasses.field(repr=False)
    gateway_port: int
    runtime: pathlib.Path

    @property
    def gateway(self) -> str:
        return f"http://{HOST}:{self.gateway_port}"


def told(
    service: ServiceName,
    settings: Settings,
    addresses: Addresses,
    folder: data.DataFolder,
    realm: accounts.Realm,
) -> dict[str, str]:
    """The settings of one service, by name; everybody gets what their work needs and no key more."""
    given = {
        "nats": addresses.nats,
        "redis": addresses.redis,
        "database": addresses.database,
        "credentials_file": str(folder.creds_path(service)),
        "secret_keys_file": str(folder.ensure_secret_keys()),
        "log_level": settings.log_level,
        "drain_s": str(settings.drain_s),
    }
    match service:
        case "gateway":
            given |= {
                "gateway_host": HOST,
                "gateway_port": str(addresses.gateway_port),
                "gateway_providers": "bubblewrap,process"
                if settings.unsafe_process_provider
                else "bubblewrap",
            }
        case "registrar":
            given |= {
                "registrar_daemon_key_file": str(folder.ensure_daemon_key(realm)),
                "registrar_fleet_account": realm.fleet.public,
            }
        case "provisioner":
            given |= {
                "provisioner_data": str(folder.path),
                "provisioner_runtime_dir": str(addresses.runtime),
                "provisioner_unsafe_process_provider": str(settings.unsafe_process_provider),
            }
        case "setup_pusher" | "prober":
            pass
    return given | dict(settings.more.get(service, {}))


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """`given` as a process of its own reads it."""
    return {f"{shared.PREFIX}{name.upper()}": value for name, value in given.items()}
