"""Settings that every service shares, read once in its `__main__` from `PADDOCK_…` variables.

Each service subclasses `ServiceSettings` and adds fields that begin with its own name (`gateway_port`). A variable that
begins with a service's name and is no setting of it stops the start: a typo must not pass as a default.
"""

import os
import pathlib
import socket
from typing import Annotated, Any, ClassVar, Self, TypeVar

import pydantic
import pydantic_settings

from paddock.contracts import errors
from paddock.store import barriers, secrets, stage_runs

PREFIX = "PADDOCK_"


class ServiceSettings(pydantic_settings.BaseSettings):
    """What every service is told."""

    model_config = pydantic_settings.SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")
    service: ClassVar[str]

    database: Annotated[
        pydantic.SecretStr,
        pydantic.Field(description="sqlite:///path or postgresql://user:password@host/name"),
    ]
    nats: Annotated[str, pydantic.Field(description="Where the bus is, such as nats://127.0.0.1:4222")]
    credentials_file: Annotated[
        pathlib.Path, pydantic.Field(description="This service's NATS creds file, 0600.")
    ]
    redis: Annotated[pydantic.SecretStr, pydantic.Field(description="redis://:password@host:port/0")]
    secret_keys_file: Annotated[
        pathlib.Path | None,
        pydantic.Field(description="Key ring for secrets at rest, one key a line, newest first."),
    ] = None
    secret_keys: Annotated[
        pydantic.SecretStr,
        pydantic.Field(description="The key ring itself, comma-separated; the file is better."),
    ] = pydantic.SecretStr("")
    node: Annotated[
        str, pydantic.Field(pattern=r"^[a-z0-9-]{1,60}$", description="This host's name on the bus.")
    ] = pydantic.Field(default_factory=lambda: node_name(socket.gethostname()))
    log_level: Annotated[
        str,
        pydantic.Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR."),
    ] = "INFO"
    drain_s: Annotated[
        float, pydantic.Field(gt=0, description="Seconds to finish what is in flight at a stop.")
    ] = 10.0
    lease_s: Annotated[
        float,
        pydantic.Field(gt=0, description="How long work in flight stays this process's after it died."),
    ] = stage_runs.LEASE_MS / 1000
    barrier: Annotated[
        str, pydantic.Field(description="For fault tests: the place this process stops dead at.")
    ] = ""
    barrier_dir: Annotated[
        pathlib.Path, pydantic.Field(description="Where it leaves word of having reached it.")
    ] = pathlib.Path()

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Read them, from the environment unless given.

        Raises:
            errors.InvalidParams: Naming each setting that is missing, unknown or wrong; no value is shown.
        """
        own = f"{PREFIX}{cls.service.upper()}_"
        known = {PREFIX + name.upper() for name in cls.model_fields}
        unknown = sorted(name for name in os.environ if name.startswith(own) and name not in known)
        if unknown:
            raise errors.InvalidParams(f"cannot start {cls.service}: unknown settings {', '.join(unknown)}")
        try:
            return cls(**given)
        except pydantic.ValidationError as error:
            wrong = "; ".join(
                f"{PREFIX}{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()
            )
            raise errors.InvalidParams(f"cannot start {cls.service}: {wrong}") from None

    def secret_box(self) -> secrets.SecretBox:
        """The key ring, from the file if there is one.

        Raises:
            errors.InvalidParams: It cannot be read or holds no usable key.
        """
        try:
            text = (
                self.secret_keys_file.read_text(encoding="ascii")
                if self.secret_keys_file is not None
                else self.secret_keys.get_secret_value()
            )
        except (OSError, UnicodeDecodeError) as error:
            raise errors.InvalidParams(
                f"cannot read the secret keys in {self.secret_keys_file}: {error}"
            ) from error
        return secrets.SecretBox(secrets.parse_ring(text))

    def barrier_here(self) -> barriers.Barrier:
        return barriers.Barrier(self.barrier, self.barrier_dir)


SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def node_name(hostname: str) -> str:
    """A host name as a NATS token: lowercase letters, digits and hyphens."""
    cleaned = "".join(c if c.isascii() and c.isalnum() else "-" for c in hostname.lower()).strip("-")
    return cleaned[:60] or "localhost"
