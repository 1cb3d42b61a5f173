"""Every service as a process of its own: killed, started again, stopped in order."""

import pathlib

from paddock.client import client as paddock_client
from paddock.contracts import phases
from paddock.local import processes, runtime, sandboxes, wiring


async def test_a_machine_waits_for_a_killed_service_and_goes_on_when_it_is_back(
    tmp_path: pathlib.Path,
) -> None:
    settings = wiring.Settings(data=tmp_path, gateway_port=0, unsafe_process_provider=True)
    with sandboxes.Host(tmp_path, runtime.find()) as host:
        provider, _ = await sandboxes.best(runtime.find())
        try:
            async with processes.Fleet(settings) as fleet:
                await fleet.kill("prober")
                async with paddock_client.Client(fleet.url, fleet.token()) as client:
                    project = await client.projects.create("test", provider=provider)
                    async with client.events(project_id=project.id) as feed:
                        machine = await client.machines.create(project.id)
                        async for received in feed:
                            if received.event.type == "machine.setup-pushed":
                                break
                    waiting = await client.machines.get(machine.id)

                    await fleet.start("prober")
                    active = await client.machines.create(project.id, wait_s=60)
                    first = await client.machines.get(machine.id)
                codes = [await fleet.stop(name) for name in wiring.SERVICES]
        finally:
            await host.remove_everything()

    assert waiting.phase is phases.Phase.PROBING
    assert (first.phase, active.phase) == (phases.Phase.ACTIVE, phases.Phase.ACTIVE)
    assert codes == [0] * len(wiring.SERVICES)
