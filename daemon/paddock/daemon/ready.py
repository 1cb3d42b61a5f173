"""Telling the control plane that this machine is there: ready, until it is heard, and then a heartbeat.

Ready is said for ever, with growing pauses, and again at once when the bus comes back. The answer carries the control
plane's time, by which deadlines are judged from then on.
"""

import asyncio
import random
from collections.abc import Iterator
from typing import Literal

import msgspec
import nats.errors

from paddock.bus import caller, clock, lifecycle, logs, safeclient
from paddock.contracts import daemon, errors, ids, subjects
from paddock.daemon import spool

PAUSE_FIRST_S, PAUSE_MAX_S = 0.1, 10.0

log = logs.get(__name__)


async def report(
    nc: safeclient.SafeClient,
    sandbox: ids.SandboxId,
    ready: daemon.ReadyParams,
    waiting: spool.Spool,
    synced: clock.SyncedClock,
    stop: asyncio.Event,
    *,
    answer_s: float,
) -> Literal["ok", "stop", ""]:
    """Say ready until the answer is final.

    Returns:
        `ok`: it was recorded. `stop`: this sandbox is over. Empty: our own `stop` was set first.

    Cancellation: safe; the report waits on disk.
    """
    ready = waiting.joined(ready)
    restored = lifecycle.Wakeup()
    unwatch = nc.watch(restored=restored.set)
    pauses = _pauses()
    last = ""
    try:
        async with caller.Caller(nc, caller_id=sandbox, clock=synced) as asking:
            while not stop.is_set():
                answer, reason = await _ask(asking, sandbox, ready, synced, answer_s=answer_s)
                if last != (last := f"{answer}: {reason}"):
                    # Not each time: it may go on for days.
                    log.info("ready_answered", answer=answer, reason=reason)
                if answer == "ok":
                    waiting.drop()
                if answer == "ok" or answer == "stop":  # noqa: PLR1714 - mypy reads this one
                    return answer
                waiting.keep(ready)
                if await restored.wait(next(pauses), stop):
                    pauses = _pauses()
    finally:
        unwatch()
    return ""


async def _ask(
    asking: caller.Caller,
    sandbox: ids.SandboxId,
    ready: daemon.ReadyParams,
    synced: clock.SyncedClock,
    *,
    answer_s: float,
) -> tuple[Literal["ok", "wait", "stop"], str]:
    """Say it once; the answer and its reason."""
    began = synced.monotonic()
    ready = msgspec.structs.replace(ready, sent_at_ms=synced.now_ms())
    try:
        answer = await asking.call(subjects.report_call(sandbox), daemon.READY, ready, timeout_s=answer_s)
    except errors.Fault as fault:
        return "wait", fault.message
    synced.sync(answer.now_ms, round_trip_s=synced.monotonic() - began)
    return answer.answer, answer.reason


def _pauses() -> Iterator[float]:
    """Growing, half of each random: a fleet that comes back must not speak in chorus."""
    longest_s = PAUSE_FIRST_S
    while True:
        yield longest_s * random.uniform(0.5, 1)  # noqa: S311 - jitter, no secret
        longest_s = min(longest_s * 2, PAUSE_MAX_S)


async def beat(
    nc: safeclient.SafeClient,
    sandbox: ids.SandboxId,
    boot_id: str,
    now: clock.Clock,
    stop: asyncio.Event,
    *,
    period_s: float,
) -> None:
    """Publish a heartbeat each `period_s` until `stop`; while the bus is down there is none."""
    subject = subjects.report_beat(sandbox)
    async for _ in lifecycle.every(period_s, stop):
        params = daemon.Beat(boot_id=boot_id, at_ms=now.now_ms())
        try:
            await nc.publish(subject, msgspec.json.encode(params))
        except nats.errors.Error as error:
            log.debug("beat_not_sent", error=type(error).__name__)
