"""The prober's loops: the runner that probes, and the puller that wakes it."""

import asyncio

from paddock.bus import lifecycle, puller
from paddock.contracts import events, phases, subjects
from paddock.prober import settings, stages
from paddock.store import process, runner

DURABLE = "prober"


async def serve(context: process.Context, given: settings.Settings, stop: asyncio.Event) -> None:
    """Probe until `stop`; what is in flight then is taken over by another, or by this one later."""
    works = runner.Runner(
        context.store,
        owner=context.owner,
        node=context.node,
        stages={phases.Stage.PROBE: stages.ProbeStage(context.store, context.caller, actor=context.owner)},
        concurrency=given.prober_concurrency,
        lease_ms=context.lease_ms,
        barrier=context.barrier,
    )

    async def woken(event: events.Event, _delivery: puller.Delivery) -> None:
        await works.on_event(event)

    wakes = puller.Puller(context.stream, subjects.EVENTS_STREAM, DURABLE, woken)
    await lifecycle.run({"runner": works.run, "puller": wakes.run}, stop, drain_s=context.drain_s)
