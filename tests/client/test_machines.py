import pytest

from paddock.client import client as gateway_client
from paddock.client import machines
from paddock.contracts import errors, phases
from tests.support import fake_fleet, fake_gateway


@pytest.fixture
def machine(gateway: fake_gateway.FakeGateway) -> str:
    return gateway.fleet.add_machine(gateway.fleet.add_project().id).id


async def test_a_machine_is_asked_for_with_everything_given(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    project = gateway.fleet.add_project()

    made = await client.machines.create(project.id, name="box", labels={"team": "x"}, env={"A": "1"})

    assert (made.name, made.labels, made.phase) == ("box", {"team": "x"}, phases.Phase.CREATED)
    assert gateway.fleet.variables["machine", None, made.id] == {"A": "1"}


async def test_two_creates_are_two_machines_unless_their_token_says_otherwise(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    project = gateway.fleet.add_project()

    made = [await client.machines.create(project.id, client_token=token) for token in (None, None, "t", "t")]

    assert len({one.id for one in made}) == 3
    assert made[2] == made[3]


async def test_all_machines_come_page_after_page(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = gateway.fleet.add_project()
    expected = [gateway.fleet.add_machine(project.id).id for _ in range(401)]

    found = [one.id async for one in client.machines.each(project_id=project.id)]

    assert found == expected
    assert gateway.names_asked() == ["machine.list"] * 3


async def test_machines_can_be_asked_for_by_phase(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.add_machine("p1")
    gateway.fleet.to_active(machine)

    found = [one.id async for one in client.machines.each(among=[phases.Phase.ACTIVE])]

    assert found == [machine]


@pytest.mark.parametrize(
    "content", ["häuser\n", b"plain", b"\x00\xff\xfe binary", b""], ids=["text", "bytes", "binary", "empty"]
)
async def test_a_file_comes_back_as_it_was_written(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway, machine: str, content: str | bytes
) -> None:
    written = await client.machines.write_file(machine, "/x", content, mode=0o600)

    expected = content.encode() if isinstance(content, str) else content
    assert written.bytes_written == len(expected)
    assert gateway.fleet.files["/x"] == (expected, 0o600)
    assert await client.machines.read_bytes(machine, "/x") == expected


async def test_a_large_file_is_read_in_parts(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    whole = "häuser".encode() * 100_000
    gateway.fleet.files["/big"] = (whole, 0o644)

    assert await client.machines.read_bytes(machine, "/big") == whole
    assert len(gateway.asked) == -(-len(whole) // machines.READ_PART_BYTES)


async def test_a_file_that_changes_while_it_is_read_is_not_given(
    client: gateway_client.Client,
    gateway: fake_gateway.FakeGateway,
    machine: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway.fleet.files["/big"] = (b"a" * machines.READ_PART_BYTES * 2, 0o644)
    read_file = client.machines.read_file

    async def read_and_change(*args: object, **more: object) -> object:
        part = await read_file(*args, **more)  # type: ignore[arg-type]
        gateway.fleet.files["/big"] = (b"b" * machines.READ_PART_BYTES * 2, 0o644)
        return part

    monkeypatch.setattr(client.machines, "read_file", read_and_change)

    with pytest.raises(errors.Conflict, match="changed meanwhile"):
        await client.machines.read_bytes(machine, "/big")


async def test_a_file_that_shrank_while_it_was_read_is_no_endless_reading(
    client: gateway_client.Client,
    gateway: fake_gateway.FakeGateway,
    machine: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway.fleet.files["/big"] = (b"a" * machines.READ_PART_BYTES * 2, 0o644)
    read_file = client.machines.read_file

    async def read_and_empty(*args: object, **more: object) -> object:
        part = await read_file(*args, **more)  # type: ignore[arg-type]
        gateway.fleet.files["/big"] = (b"", 0o644)
        return part

    monkeypatch.setattr(client.machines, "read_file", read_and_empty)

    with pytest.raises(errors.Conflict):
        await client.machines.read_bytes(machine, "/big")


@pytest.mark.parametrize("content", ["x" * 700_000, b"\xff" * 500_000], ids=["text", "binary"])
async def test_what_does_not_fit_in_one_call_is_refused_here(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway, machine: str, content: str | bytes
) -> None:
    with pytest.raises(errors.PayloadTooLarge, match="cannot write /x"):
        await client.machines.write_file(machine, "/x", content)
    assert gateway.asked == []


async def test_a_command_s_exit_code_is_a_result(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    gateway.fleet.exec = lambda asked: fake_fleet.exec_result(3, stdout=asked.stdin)

    ended = await client.machines.exec(machine, ["cat"], stdin="in", env={"A": "1"}, cwd="/tmp")

    assert (ended.exit_code, ended.stdout) == (3, "in")
    assert gateway.fleet.commands_run[0].env == {"A": "1"}


async def test_a_failed_machine_can_be_retried_and_no_other(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    with pytest.raises(errors.WrongPhase):
        await client.machines.retry(machine)
    gateway.fleet.fail(machine, "no disk")

    assert (await client.machines.retry(machine)).generation == 2


async def test_a_command_that_is_one_text_is_refused_with_what_a_list_looks_like(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway, machine: str
) -> None:
    with pytest.raises(errors.InvalidParams, match=r'give a list, such as \["ls", "-la"\]'):
        await client.machines.exec(machine, "ls -la")
    assert gateway.asked == []
