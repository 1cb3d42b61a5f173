import pytest

from paddock.client import client as gateway_client
from paddock.contracts import errors
from tests.support import fake_gateway


async def test_a_machine_by_its_id_asks_nothing_until_it_is_used(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    machine = client.machine("m1")
    running = machine.exec.get("build-1")

    assert (machine.id, running.id, running.machine_id) == ("m1", "build-1", "m1")
    assert gateway.asked == []


async def test_its_commands_and_files_are_those_of_that_machine(
    client: gateway_client.Client, gateway: fake_gateway.FakeGateway
) -> None:
    machine = client.machine("m1")

    await machine.exec.start(["true"])
    await machine.files.write("/tmp/x", b"")

    assert {asked.machine_id for _, asked in gateway.asked} == {"m1"}


@pytest.mark.parametrize("machine_id", ["", "../x", "a b", "x" * 200])
def test_what_is_no_machine_s_id_is_refused(machine_id: str) -> None:
    client = gateway_client.Client("http://127.0.0.1:1", "pdk_x")

    with pytest.raises(errors.InvalidParams, match="machine_id"):
        client.machine(machine_id)
