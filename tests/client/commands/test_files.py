import json

import pytest

from paddock.contracts.api import files
from tests.client.commands import conftest
from tests.support import fake_fleet, fake_gateway


@pytest.fixture
def fleet(gateway: fake_gateway.FakeGateway) -> fake_fleet.FakeFleet:
    gateway.fleet.folders |= {"~/app"}
    gateway.fleet.put("~/app/run.sh", b"echo", 0o750)
    gateway.fleet.put("~/app/sub/x.py", b"1")
    return gateway.fleet


async def test_a_folder_is_listed_as_ls_does(
    paddock: conftest.Paddock, fleet: fake_fleet.FakeFleet, machine: str
) -> None:
    shown = await paddock("files", "ls", machine, "app")

    head, *rows = shown.stdout.splitlines()
    assert head.split() == ["MODE", "OWNER", "SIZE", "MODIFIED", "NAME"]
    assert [row.split() for row in rows] == [
        ["-rwxr-x---", "4", "2027-01-15", "08:00:00Z", "run.sh"],
        ["drwxr-xr-x", "2027-01-15", "08:00:00Z", "sub/"],
    ]


async def test_without_a_path_it_is_the_home_directory(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, fleet: fake_fleet.FakeFleet, machine: str
) -> None:
    await paddock("files", "ls", machine)

    name, asked = gateway.asked[-1]
    assert (name, asked.path) == ("machine.fileList", "~")


async def test_a_path_is_shown_with_all_that_is_known(
    paddock: conftest.Paddock, fleet: fake_fleet.FakeFleet, machine: str
) -> None:
    shown = await paddock("files", "stat", "--digest", machine, "app/run.sh")

    facts = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    assert (facts["path"], facts["size"], facts["mode"]) == ("~/app/run.sh", "4 bytes", "0750 -rwxr-x---")
    assert len(facts["sha256"]) == 64


async def test_json_is_the_contract_s(
    paddock: conftest.Paddock, fleet: fake_fleet.FakeFleet, machine: str
) -> None:
    listed = await paddock("--json", "files", "ls", machine, "~/app")
    found = await paddock("files", "find", "--json", machine, "app", "--name", "*.py")

    assert [one.name for one in files.FilePage.model_validate_json(listed.stdout).entries] == [
        "run.sh",
        "sub",
    ]
    assert json.loads(found.stdout)["entries"][0]["path"] == "~/app/sub/x.py"


async def test_folders_are_made_and_things_renamed_changed_and_removed(
    paddock: conftest.Paddock, fleet: fake_fleet.FakeFleet, machine: str
) -> None:
    words = [
        ("mkdir", machine, "new"),
        ("mkdir", "-p", machine, "new"),
        ("mv", machine, "app/run.sh", "new/run"),
        ("chmod", machine, "600", "new/run"),
        ("rm", machine, "new/run"),
        ("rm", "-r", machine, "app", "new"),
    ]

    for one in words[:4]:
        assert (await paddock("files", *one)).exit_code == 0
    was = fleet.files["~/new/run"]
    codes = [(await paddock("files", *one)).exit_code for one in words[4:]]

    assert was == (b"echo", 0o600)
    assert codes == [0, 0]
    assert (fleet.files, fleet.folders & {"~/app", "~/new"}) == ({}, set())


@pytest.mark.parametrize(
    ("typed", "exit_code", "told"),
    [
        (("stat", "{m}", "nope"), 72, "does not exist"),
        (("rm", "{m}", "app"), 73, "it is not empty"),
        (("mkdir", "{m}", "app"), 73, "it exists"),
        (("mv", "{m}", "app/run.sh", "app/sub/x.py"), 73, "something is there"),
        (("chmod", "{m}", "9", "app/run.sh"), 78, "cannot use the mode '9'"),
        (("chmod", "--", "{m}", "-7", "app/run.sh"), 78, "cannot use the mode"),
        (("mkdir", "{m}", "x", "--mode", "77777"), 78, "cannot use the mode '77777'"),
        (("find", "{m}", "app", "--name", ""), 78, "cannot use these parameters: pattern"),
    ],
)
async def test_what_cannot_be_done_is_told_with_its_exit_code(
    paddock: conftest.Paddock,
    fleet: fake_fleet.FakeFleet,
    machine: str,
    typed: tuple[str, ...],
    exit_code: int,
    told: str,
) -> None:
    refused = await paddock("files", *(one.format(m=machine) for one in typed))

    assert told in refused.stderr
    assert refused.exit_code == exit_code


async def test_more_than_the_limit_is_told(
    paddock: conftest.Paddock, fleet: fake_fleet.FakeFleet, machine: str
) -> None:
    shown = await paddock("files", "find", "--limit", "1", machine, "app")

    assert len(shown.stdout.splitlines()) == 2
    assert shown.stderr.startswith("paddock: there is more than these 1; --limit shows up to")


async def test_no_name_steers_our_terminal(
    paddock: conftest.Paddock, fleet: fake_fleet.FakeFleet, machine: str
) -> None:
    fleet.put("~/app/\x1b]0;x\x07\nline", b"")

    shown = await paddock("files", "ls", machine, "app")

    assert "\x1b" not in shown.stdout
    assert len(shown.stdout.splitlines()) == 4


async def test_with_p_the_folders_above_are_made_too(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    made = await paddock("files", "mkdir", "-p", machine, "work/a/b")
    again = await paddock("files", "mkdir", "--parents", machine, "work/a/b")

    asked = [params for name, params in gateway.asked if name == "machine.fileMkdir"]
    assert (made.exit_code, again.exit_code) == (0, 0)
    assert [(one.path, one.parents) for one in asked] == [("~/work/a/b", True)] * 2
