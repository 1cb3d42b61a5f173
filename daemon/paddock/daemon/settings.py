"""What the daemon is told at its start: `$PADDOCK_HOME/boot.json` and the environment, read once.

The control plane writes the file before it starts the sandbox; credentials stand in a file of their own.
"""

import pathlib
from collections.abc import Mapping
from typing import Annotated

import msgspec

from paddock.contracts import daemon, errors, ids, rpc

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]


EXEC_KEPT_S = 24 * 3600.0
"""As `KEPT_S` in `contracts.executions`, which not every daemon needs."""


class SettingsError(Exception):
    """The daemon cannot start with what it was told; the message names the file and the member."""


class Boot(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """`boot.json`."""

    machine_id: str
    generation: Annotated[int, msgspec.Meta(ge=1)]
    sandbox_id: str
    bus_url: Annotated[str, msgspec.Meta(min_length=1)]
    credentials_file: Annotated[str, msgspec.Meta(description="Of a NATS user; relative to this folder.")]
    node_name: str
    inbox_prefix: Annotated[str, msgspec.Meta(min_length=1)]
    heartbeat_s: Annotated[Seconds, msgspec.Meta(description="Between two heartbeats.")] = daemon.HEARTBEAT_S
    drain_s: Annotated[Seconds, msgspec.Meta(description="For calls in flight at a graceful stop.")] = 5.0
    answer_s: Annotated[Seconds, msgspec.Meta(description="For one answer of the registrar.")] = 5.0
    held_reply_s: Annotated[Seconds, msgspec.Meta(description="How long a reply waits.")] = rpc.HELD_REPLY_S
    exec_kept_s: Annotated[
        float, msgspec.Meta(gt=0, description="How long an ended command and its output are kept.")
    ] = EXEC_KEPT_S
    reconnect_jitter_s: Annotated[Seconds, msgspec.Meta(description="Spreads a fleet that comes back.")] = 2.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `supervisor_pid` is 0 when nobody supervises.

    `booted_fd` is held open by who waits for this boot to end, and closed by us when we are ready; -1 is nobody.
    """

    boot: Boot
    home: str
    folder: pathlib.Path
    supervisor_pid: int
    booted_fd: int = -1
    last_exit: str
    environ: Mapping[str, str]

    @property
    def sandbox(self) -> ids.SandboxId:
        return ids.SandboxId(self.boot.sandbox_id)

    @property
    def credentials(self) -> pathlib.Path:
        return self.folder / self.boot.credentials_file

    @property
    def env_file(self) -> pathlib.Path:
        return self.folder / ".env"


def home_of(environ: Mapping[str, str]) -> str:
    """The home directory, without a slash at its end."""
    return environ.get("HOME", "").rstrip("/") or str(pathlib.Path.home())


def folder_of(environ: Mapping[str, str]) -> pathlib.Path:
    """`$PADDOCK_HOME`, by default `~/.paddock`."""
    return pathlib.Path(environ.get("PADDOCK_HOME") or f"{home_of(environ)}/.paddock")


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings.

    Raises:
        SettingsError: The file or something in it is missing or wrong.
    """
    folder = folder_of(environ)
    path = folder / "boot.json"
    try:
        boot = msgspec.json.decode(path.read_bytes(), type=Boot)
        ids.split_sandbox(boot.sandbox_id)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {(error.strerror or '').lower()}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, errors.InvalidParams) as error:
        raise SettingsError(f"cannot use {path}: {error}") from error
    settings = Settings(
        boot=boot,
        home=home_of(environ),
        folder=folder,
        supervisor_pid=int(environ.get("PADDOCK_SUPERVISOR") or 0),
        booted_fd=int(environ.get("PADDOCK_BOOTED_FD") or -1),
        last_exit=environ.get("PADDOCK_LAST_EXIT", ""),
        environ=dict(environ),
    )
    if not settings.credentials.is_file():
        raise SettingsError(f"cannot find the credentials at {settings.credentials}, named in {path}")
    return settings
