"""The typed client of one gateway.

    async with Client("http://127.0.0.1:7480", token) as client:
        machine = await client.machines.create(project.id)

Every method takes plain values, answers the contract's models and raises the contract's faults; `fault.retryable`
says whether asking again can help.
"""

from collections.abc import Sequence
from typing import Self

from paddock.client import (
    address,
    env,
    machines,
    projects,
    repositories,
    system,
    tokens,
    transport,
    websocket,
)
from paddock.client import machine as machine_of
from paddock.contracts.api import events
from paddock.contracts.api import machines as machines_api


class Client:
    """One gateway, one access token. Used inside `async with`; any number of calls at once."""

    def __init__(self, url: str, token: str, *, timeout_s: float = transport.TIMEOUT_S) -> None:
        """Make one; nothing is asked yet.

        Args:
            url: `http://` or `https://`, without `/rpc`.
            token: The access token's text.
            timeout_s: For each call, on top of the time the call is asked to take.

        Raises:
            errors.InvalidParams: The address or the token cannot be used.
        """
        self._link = transport.Transport(address.Address(url, token), timeout_s=timeout_s)
        self.system = system.System(self._link)
        self.projects = projects.Projects(self._link)
        self.machines = machines.Machines(self._link)
        self.env = env.Env(self._link)
        self.repositories = repositories.Repositories(self._link)
        self.tokens = tokens.Tokens(self._link)

    @property
    def url(self) -> str:
        return self._link.url

    async def __aenter__(self) -> Self:
        await self._link.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._link.__aexit__()

    def machine(self, machine_id: str) -> machine_of.Machine:
        """One machine, to run commands in it and move files; nothing is asked yet.

        Raises:
            errors.InvalidParams: This is no machine's id.
        """
        with transport.checked():
            machines_api.MachineGet(machine_id=machine_id)
        return machine_of.Machine(self._link, machine_id)

    def events(
        self,
        *,
        project_id: str | None = None,
        machine_id: str | None = None,
        types: Sequence[str] | None = None,
        cursor: str | None = None,
        patience_s: float = websocket.PATIENCE_S,
    ) -> websocket.EventFeed:
        """Follow what happens: `async for received in client.events(machine_id=…)`.

        Args:
            project_id: Only of this project.
            machine_id: Only of this machine.
            types: Only these, such as `machine.created`.
            cursor: What came after it is given first; from now on when None.
            patience_s: How long to try to get a cut link back before giving up.
        """
        with transport.checked():
            asked = events.EventsSubscribe(
                project_id=project_id,
                machine_id=machine_id,
                types=list(types) if types else None,
                cursor=cursor,
            )
        return websocket.EventFeed(self._link.websocket, asked, patience_s=patience_s)
