"""The provisioner's loops: the runner of the provider lane, the keeper of this host's sandboxes, and of limits."""

import asyncio

from paddock.bus import lifecycle, puller, responder
from paddock.contracts import events, ids, phases, subjects
from paddock.provisioner import catalogue, limits, methods, settings, stages, watcher
from paddock.store import process, runner

DURABLE = "provisioner"


async def serve(context: process.Context, given: settings.Settings, stop: asyncio.Event) -> None:
    """Provision until `stop`; sandboxes stay, and what is in flight is taken over by another, or by this one later."""
    async with catalogue.opened(given, context.clock) as providers:
        works: runner.Runner

        def wake(machine: ids.MachineId) -> None:
            works.wake(machine)

        keeper = watcher.Watcher(context, providers, orphan_s=given.provisioner_orphan_s, wake=wake)
        works = _runner(context, given, providers, keeper)

        async def woken(event: events.Event, _delivery: puller.Delivery) -> None:
            await works.on_event(event)

        async def answer(stop: asyncio.Event) -> None:
            async with asyncio.TaskGroup() as tasks:
                server = responder.Responder(
                    context.rpc,
                    subject=subjects.provisioner_call(context.node),
                    handlers=methods.Desk(providers).handlers(),
                    clock=context.clock,
                    tasks=tasks,
                    queue=DURABLE,
                )
                await server.serve(stop, drain_s=context.drain_s)

        loops: dict[str, lifecycle.Loop] = {
            "runner": works.run,
            "puller": puller.Puller(context.stream, subjects.EVENTS_STREAM, DURABLE, woken).run,
            "methods": answer,
            "watcher": keeper.run,
            "orphans": keeper.sweep_orphans,
            "limits": limits.Limits(context, providers, wake=wake).run,
        }
        await lifecycle.run(loops, stop, drain_s=context.drain_s)


def _runner(
    context: process.Context,
    given: settings.Settings,
    providers: catalogue.Catalogue,
    keeper: watcher.Watcher,
) -> runner.Runner:
    provision = stages.ProvisionStage(
        context.store,
        providers,
        context.caller,
        node=context.node,
        actor=context.owner,
        bus_url=given.machine_nats,
        wall=context.clock,
        made=keeper.watch,
    )
    destroy = stages.DestroyStage(context.store, providers, node=context.node, actor=context.owner)
    return runner.Runner(
        context.store,
        owner=context.owner,
        node=context.node,
        stages={phases.Stage.PROVISION: provision, phases.Stage.DESTROY: destroy},
        concurrency=given.provisioner_concurrency,
        is_pinning=True,
        lease_ms=context.lease_ms,
        barrier=context.barrier,
    )
