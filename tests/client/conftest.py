"""A fake gateway for each test, and a client of it that does not wait long between tries."""

from collections.abc import AsyncIterator

import pytest

from paddock.client import client as gateway_client
from paddock.client import transport, watch, websocket
from tests.support import fake_gateway


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "DELAYS_S", (0.001, 0.001, 0.001))
    monkeypatch.setattr(websocket, "DELAY_S", 0.001)
    monkeypatch.setattr(websocket, "FIRST_PATIENCE_S", 0.01)
    monkeypatch.setattr(watch, "LOOK_S", 0.2)


@pytest.fixture
async def gateway() -> AsyncIterator[fake_gateway.FakeGateway]:
    async with fake_gateway.FakeGateway() as running:
        yield running


@pytest.fixture
async def client(gateway: fake_gateway.FakeGateway) -> AsyncIterator[gateway_client.Client]:
    async with gateway_client.Client(gateway.url, gateway.token, timeout_s=5.0) as connected:
        yield connected
