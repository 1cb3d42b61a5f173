"""A fake gateway for each test, and a client of it that does not wait long between tries."""

from collections.abc import AsyncIterator

import pytest

from paddock.client import client as gateway_client
from paddock.client import machine as machine_of
from paddock.client import patience, transport, watch, websocket
from tests.support import cutting_proxy, fake_gateway


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "DELAYS_S", (0.001, 0.001, 0.001))
    monkeypatch.setattr(websocket, "DELAY_S", 0.001)
    monkeypatch.setattr(websocket, "FIRST_PATIENCE_S", 0.01)
    monkeypatch.setattr(patience, "DELAY_S", 0.001)
    monkeypatch.setattr(patience, "FIRST_PATIENCE_S", 0.01)
    monkeypatch.setattr(watch, "LOOK_S", 0.2)


@pytest.fixture
async def gateway() -> AsyncIterator[fake_gateway.FakeGateway]:
    async with fake_gateway.FakeGateway() as running:
        yield running


@pytest.fixture
async def client(gateway: fake_gateway.FakeGateway) -> AsyncIterator[gateway_client.Client]:
    async with gateway_client.Client(gateway.url, gateway.token, timeout_s=5.0) as connected:
        yield connected


@pytest.fixture
def machine_id(gateway: fake_gateway.FakeGateway) -> str:
    return gateway.fleet.add_machine(gateway.fleet.add_project().id).id


@pytest.fixture
def machine(client: gateway_client.Client, machine_id: str) -> machine_of.Machine:
    return client.machine(machine_id)


@pytest.fixture
async def proxy(gateway: fake_gateway.FakeGateway) -> AsyncIterator[cutting_proxy.CuttingProxy]:
    async with cutting_proxy.CuttingProxy(int(gateway.url.rpartition(":")[2])) as running:
        yield running


@pytest.fixture
async def far_machine(
    proxy: cutting_proxy.CuttingProxy, gateway: fake_gateway.FakeGateway, machine_id: str
) -> AsyncIterator[machine_of.Machine]:
    """A machine behind a network that breaks."""
    async with gateway_client.Client(proxy.url, gateway.token, timeout_s=5.0) as connected:
        yield connected.machine(machine_id)
