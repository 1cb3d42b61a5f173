"""A HOME was in the machine's hands: whatever it left there, nothing outside is read or written."""

import pathlib

import msgspec

from paddock.provisioner.providers import homes

BOOT = homes.Boot(
    machine_id="m1",
    generation=1,
    sandbox_id="m1-1",
    bus_url="nats://127.0.0.1:1",
    credentials_file="/home/machine/.paddock/bus.creds",
    node_name="here",
    inbox_prefix="_INBOX_m1-1",
)


def test_what_the_daemon_needs_is_there_and_private(tmp_path: pathlib.Path) -> None:
    homes.inject(tmp_path, BOOT, "creds")

    folder = tmp_path / ".paddock"
    modes = [
        oct(path.stat().st_mode & 0o777) for path in (folder, folder / "boot.json", folder / "bus.creds")
    ]
    assert modes == ["0o700", "0o600", "0o600"]
    assert msgspec.json.decode((folder / "boot.json").read_bytes()) == {
        "machineId": "m1",
        "generation": 1,
        "sandboxId": "m1-1",
        "busUrl": "nats://127.0.0.1:1",
        "credentialsFile": "/home/machine/.paddock/bus.creds",
        "nodeName": "here",
        "inboxPrefix": "_INBOX_m1-1",
    }


def test_injecting_again_replaces(tmp_path: pathlib.Path) -> None:
    homes.inject(tmp_path, BOOT, "old")
    homes.inject(tmp_path, BOOT, "new")

    assert (tmp_path / ".paddock/bus.creds").read_text() == "new"
    assert sorted(path.name for path in (tmp_path / ".paddock").iterdir()) == ["boot.json", "bus.creds"]


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: pathlib.Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    home.mkdir()
    outside.mkdir()
    (home / ".paddock").symlink_to(outside)

    homes.inject(home, BOOT, "creds")

    assert list(outside.iterdir()) == []
    assert (home / ".paddock/bus.creds").read_text() == "creds"


def test_a_link_in_place_of_a_file_is_replaced_not_followed(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "host-file"
    target.write_text("the host's")
    (tmp_path / ".paddock").mkdir()
    (tmp_path / ".paddock/bus.creds").symlink_to(target)

    homes.inject(tmp_path, BOOT, "creds")

    assert target.read_text() == "the host's"
    assert (tmp_path / ".paddock/bus.creds").read_text() == "creds"


def test_a_folder_in_place_of_a_file_is_set_aside_with_what_is_in_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / ".paddock/bus.creds").mkdir(parents=True)
    (tmp_path / ".paddock/bus.creds/mine").write_text("the user's")

    homes.inject(tmp_path, BOOT, "creds")

    assert (tmp_path / ".paddock/bus.creds").read_text() == "creds"
    [aside] = (tmp_path / ".paddock").glob("bus.creds.aside-*")
    assert (aside / "mine").read_text() == "the user's"
