"""Settings: what is missing, unknown or wrong stops the start and is named; no value is shown."""

import pathlib
from typing import ClassVar

import pytest

from paddock.contracts import errors
from paddock.store import secrets, settings


class Settings(settings.ServiceSettings):
    service: ClassVar[str] = "barn"
    barn_doors: int = 2


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DATABASE": "postgresql://u:canary@h/d", "NATS": "nats://127.0.0.1:1", "CREDENTIALS_FILE": "/x", "REDIS": "redis://:canary@h",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"PADDOCK_{name}", value)


def test_they_come_from_the_environment_and_secrets_print_as_stars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDOCK_BARN_DOORS", "3")

    loaded = Settings.load()

    assert loaded.barn_doors == 3
    assert "canary" not in repr(loaded)


def test_a_misspelt_setting_of_the_service_stops_the_start_and_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PADDOCK_BARN_DOORZ", "3")

    with pytest.raises(errors.InvalidParams, match="PADDOCK_BARN_DOORZ"):
        Settings.load()


def test_a_missing_and_a_wrong_setting_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PADDOCK_NATS")
    monkeypatch.setenv("PADDOCK_BARN_DOORS", "many")

    with pytest.raises(errors.InvalidParams, match=r"PADDOCK_NATS.*PADDOCK_BARN_DOORS") as refused:
        Settings.load()
    assert "many" not in str(refused.value)


def test_the_key_ring_comes_from_its_file_or_the_variable(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = secrets.new_key()
    ring = tmp_path / "keys"
    ring.write_text(f"{key}\n")
    sealed = Settings.load(secret_keys_file=ring).secret_box().seal("x")

    monkeypatch.setenv("PADDOCK_SECRET_KEYS", key)

    assert Settings.load().secret_box().open(sealed) == "x"


def test_a_host_name_becomes_a_bus_token() -> None:
    assert settings.node_name("Web_01.Example.COM") == "web-01-example-com"
