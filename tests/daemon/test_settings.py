"""Settings are complete and right, or the daemon does not start and says what is wrong where."""

import json
import pathlib
from typing import Any

import pytest

from paddock.contracts import daemon
from paddock.daemon import settings

BOOT = {
    "machineId": "m1",
    "generation": 2,
    "sandboxId": "m1-2",
    "busUrl": "nats://127.0.0.1:4222",
    "credentialsFile": "bus.creds",
    "nodeName": "here",
    "inboxPrefix": "_INBOX_m1-2",
}


def load(home: pathlib.Path, boot: Any, environ: dict[str, str] | None = None) -> settings.Settings:
    folder = home / ".paddock"
    folder.mkdir(exist_ok=True)
    (folder / "bus.creds").write_text("secret")
    text = boot if isinstance(boot, str) else json.dumps(boot)
    (folder / "boot.json").write_text(text)
    return settings.load({"HOME": str(home), **(environ or {})})


def test_what_the_provisioner_writes_is_enough(home: pathlib.Path) -> None:
    told = load(home, BOOT, {"PADDOCK_SUPERVISOR": "7", "PADDOCK_LAST_EXIT": "exit code 1"})

    assert (told.sandbox, told.home, told.folder) == ("m1-2", str(home), home / ".paddock")
    assert told.credentials == home / ".paddock/bus.creds"
    assert told.boot.heartbeat_s == daemon.HEARTBEAT_S
    assert (told.supervisor_pid, told.last_exit) == (7, "exit code 1")


def test_paddock_home_says_where_the_folder_is(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert settings.folder_of({"HOME": str(home), "PADDOCK_HOME": str(tmp_path)}) == tmp_path
    assert settings.folder_of({"HOME": str(home) + "/"}) == home / ".paddock"


@pytest.mark.parametrize(
    ("boot", "said"),
    [
        ("", "truncated"),
        ("{", "truncated"),
        ({}, "machineId"),
        ({**BOOT, "surprise": 1}, "surprise"),
        ({**BOOT, "generation": "2"}, r"\$.generation"),
        ({**BOOT, "generation": 0}, r"\$.generation"),
        ({**BOOT, "sandboxId": "m1"}, "sandbox id"),
        ({**BOOT, "sandboxId": "*-1"}, "sandbox id"),
        ({**BOOT, "heartbeatS": 0}, r"\$.heartbeatS"),
        ({**BOOT, "credentialsFile": "missing"}, "credentials"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(home: pathlib.Path, boot: Any, said: str) -> None:
    with pytest.raises(settings.SettingsError, match=said) as raised:
        load(home, boot)

    assert str(home / ".paddock/boot.json") in str(raised.value)


def test_a_missing_file_is_named(home: pathlib.Path) -> None:
    with pytest.raises(settings.SettingsError, match=r"boot\.json: no such file"):
        settings.load({"HOME": str(home)})
