"""`make bench`: every figure against a floor taken in the same run, interleaved; nothing is a timed test.

Prints a table and writes `build/bench.json` (name → value, goal, unit, better). Exits with 1 when a row could not be
measured. A goal that is missed is shown as missed; docs/benchmarks.md says why.

    python -m tests.bench [exec|toolbox|gateway|pipeline|daemon …]
"""

import asyncio
import sys
import traceback

import uvloop

from tests.bench import daemon_size, exec_calls, gateway_calls, ground, pipeline, rows, toolbox

GROUPS = {
    "exec": exec_calls.measure,
    "toolbox": toolbox.measure,
    "gateway": gateway_calls.measure,
    "pipeline": pipeline.measure,
    "daemon": daemon_size.measure,
}


async def main(wanted: list[str]) -> int:
    report = rows.Report()
    for name in wanted:
        # A group that breaks must not take the others' figures with it; its rows are then missing and say so.
        try:
            async with ground.opened() as house:
                await GROUPS[name](house, report)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
            traceback.print_exception(error)
            report.broke(name, error)
    report.write()
    report.print()
    return report.exit_code


if __name__ == "__main__":
    asked = sys.argv[1:] or list(GROUPS)
    unknown = [name for name in asked if name not in GROUPS]
    if unknown:
        sys.exit(f"cannot measure {', '.join(unknown)}: there are {', '.join(GROUPS)}")
    sys.exit(uvloop.run(main(asked)))
