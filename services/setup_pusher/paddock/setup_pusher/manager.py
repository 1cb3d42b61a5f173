"""The setup pusher's loops: the runner that works, and the puller that wakes it."""

import asyncio

from paddock.bus import lifecycle, puller
from paddock.contracts import events, phases, subjects
from paddock.setup_pusher import plan, settings, stages, sweep
from paddock.store import process, runner

DURABLE = "setup_pusher"


async def serve(context: process.Context, given: settings.Settings, stop: asyncio.Event) -> None:
    """Push setups and environments until `stop`; what is in flight then is taken over by another, or by this one later."""
    planner = plan.Planner(context.store, given.network(), tuple(given.setup_pusher_git_protocols))
    guests = stages.Guests(context.caller, context.clock)
    works = runner.Runner(
        context.store,
        owner=context.owner,
        node=context.node,
        stages={
            phases.Stage.SETUP: stages.SetupStage(context.store, planner, guests, actor=context.owner),
            phases.Stage.ENV: stages.EnvStage(context.store, planner, guests),
        },
        concurrency=given.setup_pusher_concurrency,
        lease_ms=context.lease_ms,
        barrier=context.barrier,
    )

    async def woken(event: events.Event, _delivery: puller.Delivery) -> None:
        await works.on_event(event)

    wakes = puller.Puller(context.stream, subjects.EVENTS_STREAM, DURABLE, woken)
    loops: dict[str, lifecycle.Loop] = {
        "runner": works.run,
        "puller": wakes.run,
        "sweep": lambda stop: sweep.run(context, stop),
    }
    await lifecycle.run(loops, stop, drain_s=context.drain_s)
