import json
import pathlib

import pytest

from paddock.contracts import errors, phases
from tests.client.commands import conftest
from tests.support import fake_gateway


async def test_create_shows_the_machine_that_was_asked_for(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, project: str
) -> None:
    made = await paddock(
        "machine", "create", "--project", "demo", "--name", "box", "--label", "team=x", "--env", "A=1"
    )

    assert made.exit_code == 0, made.stderr
    machine = gateway.fleet.machines["m1"]
    assert (machine.project_id, machine.name, machine.labels) == (project, "box", {"team": "x"})
    assert gateway.fleet.variables["machine", None, "m1"] == {"A": "1"}
    assert "created" in made.stdout


async def test_create_wait_prints_a_line_for_each_phase_and_how_long_it_took(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, project: str
) -> None:
    gateway.fleet.on_created = gateway.fleet.to_active

    made = await paddock("machine", "create", "--project", project, "--wait")

    assert made.exit_code == 0, made.stderr
    assert [line.split() for line in made.stdout.splitlines()[:6]] == [
        ["created", "5", "ms"],
        ["provisioning", "200", "ms"],
        ["booting", "300", "ms"],
        ["setting_up", "1.50", "s"],
        ["probing", "12", "ms"],
        ["active", "after", "2.02", "s"],
    ]


async def test_create_wait_with_json_keeps_stdout_for_the_machine(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, project: str
) -> None:
    gateway.fleet.on_created = gateway.fleet.to_active

    made = await paddock("machine", "create", "--project", project, "--wait", "--json")

    assert json.loads(made.stdout)["phase"] == "active"
    assert "probing" in made.stderr


async def test_create_wait_fails_with_the_reason_when_the_machine_fails(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, project: str
) -> None:
    gateway.fleet.on_created = lambda machine: gateway.fleet.fail(
        machine, "cannot clone https://git.test/a: no such repository", log_tail="one\nfatal: not found\n"
    )

    made = await paddock("machine", "create", "--project", project, "--wait")

    assert made.exit_code == 1
    assert (
        "paddock: machine m1 failed: setup: cannot clone https://git.test/a: no such repository"
        in made.stderr
    )
    assert "paddock machine logs m1" in made.stderr
    assert "fatal: not found" in made.stderr
    assert "failed" in made.stdout


async def test_create_wait_gives_up_when_told_to(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, project: str
) -> None:
    made = await paddock("machine", "create", "--project", project, "--wait", "--timeout-s", "0.2")

    assert made.exit_code == 75
    assert "machine m1" in made.stderr
    assert "goes on" in made.stderr


async def test_get_shows_why_a_machine_failed(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.fail(machine, "cannot clone")

    shown = await paddock("machine", "get", machine)

    assert "setup: cannot clone" in shown.stdout


async def test_json_is_what_the_gateway_answers_wherever_it_is_asked_for(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    after = await paddock("machine", "get", machine, "--json")
    before = await paddock("--json", "machine", "get", machine)

    assert json.loads(after.stdout) == json.loads(before.stdout)
    assert json.loads(after.stdout)["projectId"] == gateway.fleet.machines[machine].project_id


async def test_list_shows_each_machine_and_its_phase(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str, project: str
) -> None:
    other = gateway.fleet.add_machine(project).id
    gateway.fleet.to_active(other)

    everything = await paddock("machine", "list", "--project", "demo")
    active = await paddock("machine", "list", "--phase", "active", "--json")

    assert [line.split()[0] for line in everything.stdout.splitlines()] == ["ID", machine, other]
    assert [one["id"] for one in json.loads(active.stdout)["machines"]] == [other]


async def test_delete_wait_follows_to_the_end(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.on_deleting = lambda one: gateway.fleet.move(one, phases.Phase.DELETED, "machine.deleted")

    deleted = await paddock("machine", "delete", machine, "--wait")

    assert deleted.exit_code == 0, deleted.stderr
    assert deleted.stdout.splitlines()[1].split() == ["deleted", "after", "100", "ms"]


async def test_retry_wait_begins_with_the_retry(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.fail(machine, "no disk")
    gateway.fleet.on_created = gateway.fleet.to_active

    again = await paddock("machine", "retry", machine, "--wait")

    assert again.exit_code == 0, again.stderr
    assert again.stdout.splitlines()[0].split() == ["created", "5", "ms"]


async def test_retry_of_a_machine_that_has_not_failed_is_refused(
    paddock: conftest.Paddock, machine: str
) -> None:
    refused = await paddock("machine", "retry", machine)

    assert refused.exit_code == 73
    assert refused.stderr.startswith(f"paddock: cannot retry machine {machine}: it has not failed; ")


async def test_history_shows_phases_and_stages_with_durations(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.to_active(machine)

    shown = await paddock("machine", "history", machine)

    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["setting_up", "1.50", "s"] in [row[:3] for row in rows]
    assert ["provision", "205", "ms"] in [row[:3] for row in rows]


async def test_logs_print_what_cannot_steer_a_terminal(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.log_text = "one\n\x1b]0;owned\x07two\n"

    shown = await paddock("machine", "logs", machine)

    assert shown.stdout == "one\n\\x1b]0;owned\\x07two\n"


async def test_a_file_is_written_from_standard_input_and_read_to_standard_output(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    written = await paddock("machine", "write", machine, "/x", "--mode", "600", stdin=b"\x00\xff")
    read = await paddock("machine", "read", machine, "/x")

    assert written.stdout == "wrote 2 bytes to /x\n"
    assert gateway.fleet.files["/x"] == (b"\x00\xff", 0o600)
    assert read.stdout_bytes == b"\x00\xff"


async def test_a_file_is_written_from_and_read_to_files(
    paddock: conftest.Paddock, machine: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "in").write_text("text")

    await paddock("machine", "write", machine, "/x", "--from", "in")
    read = await paddock("machine", "read", machine, "/x", "--to", "out")
    described = await paddock("machine", "read", machine, "/x", "--json")

    assert (read.exit_code, read.stdout, (tmp_path / "out").read_text()) == (0, "", "text")
    assert json.loads(described.stdout)["size"] == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("write", "m1", "/x", "--from", "none"), "cannot read none: No such file or directory"),
        (("write", "m1", "/x", "--from", ".", "--mode", "9"), "cannot read .: Is a directory"),
        (("write", "m1", "/x", "--mode", "rw"), "cannot use the mode 'rw': it must be octal"),
        (("read", "m1", "/none"), "cannot read /none: it does not exist"),
        (("get", "m99"), "cannot find machine m99"),
        (("get", "NO"), "cannot use these parameters: machine_id"),
        (("create", "--project", "none"), "cannot find the project 'none'"),
        (("create", "--project", "p1", "--label", "x"), "cannot read the label 'x': write it as name=value"),
    ],
)
async def test_what_cannot_be_done_is_one_sentence(
    paddock: conftest.Paddock, machine: str, arguments: tuple[str, ...], sentence: str
) -> None:
    refused = await paddock("machine", *arguments, stdin="")

    assert refused.stderr.startswith(f"paddock: {sentence}")
    assert refused.stderr.count("\n") == 1
    assert 70 <= refused.exit_code <= 78
    assert refused.stdout == ""


async def test_a_fault_is_json_where_json_was_asked_for(paddock: conftest.Paddock) -> None:
    refused = await paddock("machine", "get", "m99", "--json")

    told = json.loads(refused.stderr)["error"]
    assert (told["code"], told["kind"]) == (errors.NotFound.code, "not_found")


async def test_a_sandbox_that_was_never_heard_is_not_shown_as_seen(
    paddock: conftest.Paddock, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    before = gateway.fleet.machines[machine]
    gateway.fleet.machines[machine] = before.model_copy(update={"last_seen_at": gateway.fleet.moment()})

    shown = await paddock("machine", "get", machine)

    assert "never" in shown.stdout
    assert "last seen" not in shown.stdout
