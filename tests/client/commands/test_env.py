import json
import pathlib

import pytest

from tests.client.commands import conftest
from tests.support import fake_gateway


async def test_secrets_need_not_be_in_the_argument_list(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, project: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "key.pem").write_text("-----\nline = 1\n-----\n")

    changed = await paddock(
        *("env", "set", "--project", "demo", "PLAIN=a=b@c", "KEY@key.pem", "--stdin", "PASSWORD"),
        stdin="hunter2\n",
    )

    assert changed.exit_code == 0, changed.stderr
    assert gateway.fleet.variables["project", project, None] == {
        "PLAIN": "a=b@c",
        "KEY": "-----\nline = 1\n-----",
        "PASSWORD": "hunter2",
    }
    assert "hunter2" not in changed.output
    assert changed.stdout == "changed: KEY, PASSWORD, PLAIN; machines that are told: 0\n"


async def test_variables_are_listed_without_values(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    await paddock("env", "set", "--machine", machine, "A=hunter2", "B=")
    await paddock("env", "unset", "--machine", machine, "B")

    shown = await paddock("env", "list", "--machine", machine)
    as_json = await paddock("env", "list", "--machine", machine, "--json")

    assert shown.stdout.splitlines()[1].split()[:2] == ["A", "machine"]
    assert [one["name"] for one in json.loads(as_json.stdout)["variables"]] == ["A"]
    assert "hunter2" not in shown.output + as_json.output


async def test_the_platform_has_variables_of_its_own(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway
) -> None:
    await paddock("env", "set", "--platform", "A=1")

    assert gateway.fleet.variables == {("platform", None, None): {"A": "1"}}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("A=1",), "cannot tell whose variables are meant"),
        (("--platform", "--machine", "m1", "A=1"), "cannot tell whose variables are meant"),
        (("--platform",), "cannot set nothing"),
        (("--platform", "hunter2"), "cannot read a variable: write it as NAME=VALUE"),
        (("--platform", "9hunter2=x"), "cannot set a variable: its name must be letters"),
        (("--platform", "A@none"), "cannot read the value of A from none: No such file"),
        (("--platform", "A@binary"), "cannot read the value of A from binary: it is no UTF-8"),
    ],
)
async def test_what_cannot_be_set_is_one_sentence_without_values(
    paddock: conftest.Paddock,
    gateway: fake_gateway.FakeGateway,
    tmp_path: pathlib.Path,
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff")

    refused = await paddock("env", "set", *arguments)

    assert refused.exit_code == 78
    assert refused.stderr.startswith(f"paddock: {sentence}")
    assert "hunter2" not in refused.stderr
    assert gateway.asked == []
