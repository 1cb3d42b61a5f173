import json
import pathlib

import pytest

from paddock.client import address
from paddock.contracts import errors

LOCAL = "http://127.0.0.1:7480"


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """What `paddock up` leaves."""
    made = tmp_path / ".paddock"
    made.mkdir()
    (made / "gateway.json").write_text(json.dumps({"url": LOCAL}))
    (made / "admin.token").write_text("pdk_local\n")
    return made


def test_the_folder_of_paddock_up_is_enough(folder: pathlib.Path) -> None:
    assert address.find(environment={}, folder=folder) == address.Address(LOCAL, "pdk_local")


def test_the_environment_may_name_the_folder(folder: pathlib.Path) -> None:
    assert address.find(environment={"PADDOCK_DATA": str(folder)}).token == "pdk_local"


def test_what_is_given_by_hand_goes_before_the_environment_and_that_before_the_folder(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("pdk_hand")
    environment = {"PADDOCK_URL": "https://env.test", "PADDOCK_TOKEN": "pdk_env"}

    by_environment = address.find(environment=environment, folder=folder)
    by_hand = address.find(
        url="https://hand.test", token_file=token_file, environment=environment, folder=folder
    )

    assert by_environment == address.Address("https://env.test", "pdk_env")
    assert by_hand == address.Address("https://hand.test", "pdk_hand")


def test_the_environment_may_name_a_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "token").write_text("pdk_file\n")
    environment = {"PADDOCK_URL": LOCAL, "PADDOCK_TOKEN_FILE": str(tmp_path / "token")}

    assert address.find(environment=environment, folder=tmp_path).token == "pdk_file"


def test_the_folder_s_token_is_never_sent_elsewhere(folder: pathlib.Path) -> None:
    with pytest.raises(errors.InvalidParams, match=r"cannot ask https://other\.test without an access token"):
        address.find(url="https://other.test", environment={}, folder=folder)


def test_the_folder_s_token_fits_its_gateway_however_it_is_written(folder: pathlib.Path) -> None:
    assert address.find(url=f"{LOCAL}/", environment={}, folder=folder).token == "pdk_local"


def test_a_token_may_be_another_s_for_the_folder_s_gateway(folder: pathlib.Path) -> None:
    assert address.find(environment={"PADDOCK_TOKEN": "pdk_env"}, folder=folder) == address.Address(
        LOCAL, "pdk_env"
    )


def test_nothing_known_says_what_to_give(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.InvalidParams, match="give --url or PADDOCK_URL"):
        address.find(environment={}, folder=tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "127.0.0.1:80",
        "http://",
        "http://h:99999",
        "http://user:pw@h",
        "http://h/?q=1",
        "http://[::1",
        "",
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(errors.InvalidParams, match="cannot use the gateway's address"):
        address.Address(url, "t")


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ü"])
def test_a_token_that_cannot_be_a_header_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(errors.InvalidParams) as caught:
        address.Address(LOCAL, token)

    assert not token or token not in caught.value.message


def test_a_token_is_not_shown() -> None:
    assert "pdk_secret" not in repr(address.Address(LOCAL, "pdk_secret"))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"url": "nowhere"}'])
def test_an_unreadable_gateway_file_is_named(folder: pathlib.Path, content: str) -> None:
    (folder / "gateway.json").write_text(content)

    with pytest.raises(errors.InvalidParams, match="gateway"):
        address.find(environment={}, folder=folder)


def test_a_token_file_that_is_missing_is_named(tmp_path: pathlib.Path) -> None:
    missing = tmp_path / "none"

    with pytest.raises(errors.InvalidParams, match="none: No such file"):
        address.find(url=LOCAL, token_file=missing, environment={}, folder=tmp_path)
